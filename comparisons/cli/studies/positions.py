"""``wordlight study positions``: what falls to words and what to special positions."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wordlight.backends.progress_bar import ProgressBar
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
from wordlight.comparisons.cli.studies.arguments import tell

if TYPE_CHECKING:
    from wordlight.comparisons.studies.positions import PositionShares

NAME = "positions"
_DEFAULT = ("daam", "integrated-gradients")
_EPILOG = """\
A prompt's context has more positions than words: <start>, <end>, and <pad> for the rest. The text
encoder writes into them too, and the denoiser reads them. This shares each method's answer out
between the words, punctuation and those positions; a complete method's shares may be negative.

examples:
  wordlight study positions -n 32 --method daam --method shapley -o out/positions
  wordlight study positions --run out/compare --method daam -o out/positions
"""


def add_to(studies: Commands) -> None:
    """Add the study."""
    parser = add_command(studies, NAME, "what falls to words, and what to <end> and <pad>", _EPILOG)
    add_model(parser)
    add_methods(parser, default=" and ".join(_DEFAULT))
    parser.add_argument(
        "--run",
        dest="finished",
        type=Path,
        metavar="FOLDER",
        help="share out the maps that a comparison has kept there, and ask no model: -n, --steps, "
        "--seed, --model and what belongs to it are the comparison's",
    )
    add_count(parser, 16)
    add_steps(parser)
    add_seed(parser)
    add_folder(parser, "write the numbers (positions.json) and the table (positions.txt) there")
    add_output(parser, bars="progress bar")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Draw, explain, share out and print."""
    methods = list(dict.fromkeys(arguments.method or _DEFAULT))
    if arguments.finished is not None:
        _of_run(arguments, methods)
        return
    from wordlight.comparisons.studies.positions import study_positions

    backend = load_model(arguments)
    total = len(methods) * arguments.n
    with ProgressBar[object](
        desc="sharing out", total=total, unit="maps", disable=arguments.quiet
    ) as bar:
        found = study_positions(
            backend,
            methods,
            n=arguments.n,
            steps=arguments.steps,
            seed=arguments.seed,
            on_image=bar.update,
        )
    data = {
        "model": backend.model_id,
        **{name: getattr(arguments, name) for name in ("n", "steps", "seed")},
        "methods": [one.to_json() for one in found],
    }
    title = f"{backend.model_id}, {arguments.n} images: shares by kind of position"
    tell(arguments, NAME, data, f"{title}\n\n{table(found)}")


def _of_run(arguments: argparse.Namespace, methods: Sequence[str]) -> None:
    from wordlight.comparisons.studies.positions import positions_of_run

    with ProgressBar[object](desc="sharing out", unit="maps", disable=arguments.quiet) as bar:
        model, images, found = positions_of_run(arguments.finished, methods, on_image=bar.update)
    data = {
        "model": model,
        "n": images,
        "run": str(arguments.finished),
        "methods": [one.to_json() for one in found],
    }
    title = f"{model}, {images} images: shares by kind of position"
    tell(arguments, NAME, data, f"{title}\n\n{table(found)}")


def table(found: Sequence[PositionShares]) -> str:
    """The shares as text."""
    from wordlight.comparisons.results.text_tables import aligned
    from wordlight.comparisons.studies.positions import KINDS
    from wordlight.comparisons.studies.results import estimate_text

    lines = [["method", *KINDS, "shares of"]]
    for one in found:
        lines.append([one.method, *(estimate_text(one.shares[k], 2) for k in KINDS), one.of])
    return aligned(lines)
