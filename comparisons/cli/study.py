"""``wordlight study``: what can be asked of a model, or of all methods on it."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable
from typing import TypeAlias

from wordlight.backends.arrays_file import write_atomically
from wordlight.backends.progress_bar import ProgressBar
from wordlight.backends.prompted_data import DATA
from wordlight.backends.prompts import check_split
from wordlight.comparisons.cli.arguments import (
    Commands,
    add_command,
    add_count,
    add_folder,
    add_methods,
    add_model,
    add_output,
    add_seed,
    add_steps,
    load_model,
)
from wordlight.comparisons.cli.studies import (
    entanglement,
    faithfulness,
    influence,
    layers,
    parity,
    positions,
    relations,
)
from wordlight.comparisons.store.lock import locked
from wordlight.comparisons.store.output_folder import claimed

#: Runs a command; gives the exit status, None for 0.
Run: TypeAlias = Callable[[argparse.Namespace], int | None]


def add_to(commands: Commands) -> None:
    """Add the command with its studies."""
    parser = add_command(commands, "study", "study a model")
    studies = parser.add_subparsers(title="studies", metavar="STUDY", required=True)
    following = add_command(
        studies, "following", "how well a model draws what known prompts ask for"
    )
    add_model(following)
    add_count(following, 200, "prompts")
    following.add_argument(
        "--data",
        choices=DATA,
        default="scenes",
        help="whose prompts: of coloured shapes (scenes, the default) or of real nouns (things)",
    )
    following.add_argument("--split", default="test", help="the prompts' split (default: test)")
    add_seed(following)
    add_folder(
        following, "write the shares (following.json) and the first 64 images (sheet.png) there"
    )
    add_output(following, bars="progress bar")
    following.set_defaults(run=run_following)
    sanity = add_command(
        studies, "sanity", "whether methods' maps change when the model's weights are randomised"
    )
    add_model(sanity)
    add_methods(sanity, default="all installed ones but shuffled-word")
    add_count(sanity, 8)
    add_steps(sanity)
    add_seed(sanity, "noise and random weights")
    add_folder(sanity, "write the numbers (sanity.json) and their curves (sanity.png) there")
    add_output(sanity, bars="progress bar")
    sanity.set_defaults(run=run_sanity)
    for one in (layers, positions, influence, relations, entanglement, parity):
        one.add_to(studies)
    for study in studies.choices.values():
        study.set_defaults(run=alone_in_folder(study.get_default("run")))
    # A comparison, which holds its folder itself.
    faithfulness.add_to(studies)


def alone_in_folder(run: Run) -> Run:
    """The same study, which holds the lock of the folder that it writes into."""

    def locked_run(arguments: argparse.Namespace) -> int | None:
        if arguments.out is None:
            return run(arguments)
        with claimed(arguments.out), locked(arguments.out):
            return run(arguments)

    return locked_run


def run_following(arguments: argparse.Namespace) -> None:
    """Draw, judge and print."""
    from wordlight.comparisons.studies.following import study_following
    from wordlight.comparisons.studies.results import estimate_data
    from wordlight.comparisons.studies.sheet import write_sheet

    data = DATA[arguments.data]
    check_split(arguments.split, data.splits)
    backend = load_model(arguments)
    with ProgressBar[object](
        desc="drawing images", total=arguments.n, unit="images", disable=arguments.quiet
    ) as bar:
        found = study_following(
            backend,
            n=arguments.n,
            split=arguments.split,
            seed=arguments.seed,
            data=data,
            on_image=bar.update,
        )
    estimates = {kind: estimate_data(one) for kind, one in found.shares.items()}
    shares = json.dumps(estimates, indent=2, allow_nan=False)
    if arguments.out is not None:
        write_atomically(arguments.out / "following.json", (shares + "\n").encode())
        write_sheet(arguments.out / "sheet.png", found.drawings[:64])
    if arguments.json:
        print(shares)
        return
    print(f"{backend.model_id}, {arguments.n} prompts of the {arguments.split} split:\n")
    for kind, one in found.shares.items():
        share = f"{one.mean:6.1%}" if one.n else "     -"
        if not math.isnan(one.low):
            share += f"  [{one.low:.1%}, {one.high:.1%}]"
        print(f"{kind:9} {share}  of {one.n:4} {data.questions[kind]}")


def run_sanity(arguments: argparse.Namespace) -> None:
    """Randomise stage by stage, compare and print."""
    from wordlight.attribution import registry
    from wordlight.comparisons.studies.sanity import cascade_stages, study_sanity, write_sanity

    backend = load_model(arguments)
    known = registry.available()
    can = [name for name, kind in known.items() if kind.needs <= backend.capabilities]
    methods = list(dict.fromkeys(arguments.method or testable(can)))
    cells = len(methods) * (1 + len(cascade_stages(backend)))
    with ProgressBar[object](
        desc="comparing maps", total=cells, unit="maps", disable=arguments.quiet
    ) as bar:
        cascades = study_sanity(
            backend,
            methods,
            n=arguments.n,
            steps=arguments.steps,
            seed=arguments.seed,
            on_cell=bar.update,
        )
    if arguments.out is not None:
        write_sanity(arguments.out, cascades)
    if arguments.json:
        print(json.dumps([c.to_json() for c in cascades], indent=2, allow_nan=False))
        return
    print(f"{backend.model_id}, {arguments.n} images: rank correlation with the original maps\n")
    for cascade in cascades:
        last = cascade.similarity[-1]
        mark = "" if cascade.depends_on_model else "  does not depend on the model"
        interval = "" if math.isnan(last.low) else f"[{last.low:+.2f}, {last.high:+.2f}]"
        print(f"{cascade.method:24} {last.mean:+.2f}  {interval}  all random{mark}")


def testable(methods: Iterable[str]) -> list[str]:
    """The methods that can be asked by themselves: all but the shuffled words."""
    return [name for name in methods if name != "shuffled-word"]
