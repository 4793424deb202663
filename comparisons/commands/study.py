"""``wordlight study following``: how well a model follows its prompts."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from wordlight.backends.arrays_file import write_atomically
from wordlight.backends.scenes.grammar import SPLITS
from wordlight.comparisons.commands.arguments import (
    Commands,
    add_command,
    add_model,
    add_output,
    whole_number,
)

_ASKED = {
    "colour": "objects asked for that are there in their colour",
    "shape": "objects asked for that are there in their colour and shape",
    "count": "groups of objects that have the number asked for",
    "relation": "relations (left of, right of, above, below) that hold",
}


def add_to(commands: Commands) -> None:
    """Add the command with its studies."""
    parser = add_command(commands, "study", "study a model")
    studies = parser.add_subparsers(title="studies", metavar="STUDY", required=True)
    following = add_command(
        studies, "following", "how well a model that draws coloured shapes follows its prompts"
    )
    add_model(following)
    following.add_argument(
        "-n", type=whole_number(1), default=200, metavar="N", help="prompts (default: 200)"
    )
    following.add_argument(
        "--split", choices=SPLITS, default="test", help="whose prompts (default: test)"
    )
    following.add_argument(
        "--seed", type=whole_number(0), default=0, help="of the images' noise (default: 0)"
    )
    following.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FOLDER",
        help="write the shares (following.json) and the first 64 images (sheet.png) there",
    )
    add_output(following, bars="progress bar")
    following.set_defaults(run=run_following)


def run_following(arguments: argparse.Namespace) -> None:
    """Draw, judge and print."""
    from wordlight.backends.loading import load
    from wordlight.comparisons.studies.following import study_following
    from wordlight.comparisons.studies.sheet import write_sheet

    backend = load(arguments.model, framework=arguments.framework, device=arguments.device)
    with tqdm(
        desc="drawing images", total=arguments.n, unit="image", disable=arguments.quiet
    ) as bar:
        found = study_following(
            backend, n=arguments.n, split=arguments.split, seed=arguments.seed, on_image=bar.update
        )
    shares = json.dumps({kind: asdict(one) for kind, one in found.shares.items()}, indent=2)
    if arguments.out is not None:
        write_atomically(arguments.out / "following.json", (shares + "\n").encode())
        write_sheet(arguments.out / "sheet.png", found.drawings[:64])
    if arguments.json:
        print(shares)
        return
    print(f"{backend.model_id}, {arguments.n} prompts of the {arguments.split} split:\n")
    for kind, one in found.shares.items():
        share = f"{one.mean:6.1%}  [{one.low:.1%}, {one.high:.1%}]"
        print(f"{kind:9} {share}  of {one.n:4} {_ASKED[kind]}")
