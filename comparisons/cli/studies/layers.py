"""``wordlight study layers``: DAAM by layer and step."""

from __future__ import annotations

import argparse
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from wordlight.backends.progress_bar import ProgressBar
from wordlight.comparisons.cli.arguments import (
    Commands,
    add_command,
    add_count,
    add_folder,
    add_model,
    add_output,
    add_seed,
    load_model,
)
from wordlight.comparisons.cli.studies.arguments import tell
from wordlight.comparisons.runs.options import whole_number

if TYPE_CHECKING:
    from wordlight.comparisons.studies.layers import LayersStudy

NAME = "layers"
_EPILOG = """\
DAAM averages the cross-attention of all layers and steps. This judges each layer at each step by
itself, on the words that a comparison's headline is over, each cut at the threshold that is best
for it on the calibration images. The best place is chosen there too; its score is of the others.
Two controls stand beside them: guidance-norm, how far the whole prompt pushes a pixel, the same for
every word, and shuffled-word, all layers' map of a word of another object.

examples:
  wordlight study layers -n 100 --calibration 50 -o out/layers
  wordlight study layers -n 32 --calibration 16 --images out/compare/samples -o out/layers
"""


def add_to(studies: Commands) -> None:
    """Add the study."""
    parser = add_command(
        studies, NAME, "which layer's attention, at which step, does best", _EPILOG
    )
    add_model(parser)
    add_count(parser, 32, "test images")
    parser.add_argument(
        "--calibration",
        type=whole_number(1),
        default=32,
        metavar="N",
        help="images on which thresholds and the best place are chosen (default: 32)",
    )
    add_seed(parser)
    parser.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="keep the images there, or take those that are there already, such as a comparison's "
        "samples/ (default: draw them and keep none)",
    )
    add_folder(
        parser,
        "write the numbers (layers.json), the table (layers.txt) and the figure (layers.png) there",
    )
    add_output(parser, bars="progress bar")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Draw, judge every layer and step, and print."""
    from wordlight.comparisons.studies.layers import draw_layers, study_layers

    backend = load_model(arguments)
    total = arguments.calibration + arguments.n
    kept = arguments.images
    with (
        tempfile.TemporaryDirectory() if kept is None else nullcontext(kept) as folder,
        ProgressBar[object](
            desc="judging layers", total=total, unit="images", disable=arguments.quiet
        ) as bar,
    ):
        found = study_layers(
            backend,
            Path(folder),
            calibration=arguments.calibration,
            n=arguments.n,
            seed=arguments.seed,
            on_image=bar.update,
        )
    if arguments.out is not None:
        draw_layers(found, arguments.out / "layers.png")
    tell(arguments, NAME, found.to_json(), table(found))


def table(found: LayersStudy) -> str:
    """The layers over all steps and at their best step, as text; below them all layers together and
    the controls."""
    from wordlight.comparisons.results.text_tables import aligned
    from wordlight.comparisons.studies.layers import short
    from wordlight.comparisons.studies.results import estimate_text

    best_place = found.best
    lines = [["layer", "over all steps [95 %]", "best step", "there [95 %]"]]
    for layer in (*found.layers, None, *found.controls):
        steps = [s for s in found.scores if s.layer == layer and s.step is not None]
        best = max(steps, key=lambda score: score.tuning)
        lines.append(
            [
                short(layer),
                estimate_text(found.at(layer, None).miou),
                f"t = {found.timesteps[best.step or 0]:.0f}",
                estimate_text(best.miou),
            ]
        )
    return "\n".join(
        [
            f"DAAM's mIoU on {found.images} images by {found.model}, by layer, over "
            f"{found.at(None, None).miou.n} words",
            "",
            aligned(lines, extra=1 + len(found.controls)),
            "",
            f"thresholds and best steps were chosen on {found.calibration} calibration images; the "
            "best place there is",
            f"{short(best_place.layer)} at "
            + (
                "all steps"
                if best_place.step is None
                else f"t = {found.timesteps[best_place.step]:.0f}"
            )
            + f", with {estimate_text(best_place.miou)} on the others",
            "(guidance-norm): how far the whole prompt pushes, the same map for every word",
            "(shuffled-word): all layers' map of a word of another object",
        ]
    )
