"""``wordlight study parity``: how far apart two frameworks' maps are."""

from __future__ import annotations

import argparse

from wordlight.backends.progress_bar import ProgressBar
from wordlight.comparisons.cli.arguments import (
    Commands,
    add_command,
    add_count,
    add_folder,
    add_methods,
    add_options,
    add_output,
    add_seed,
)
from wordlight.comparisons.runs.options import ModelOptions, whole_number

_EPILOG = """\
Images are sampled on PyTorch; both frameworks then explain the same latents, so that what differs
is the computation alone. Columns: the largest and the median difference between the maps' values,
in the maps' own units, and the same relative to the largest value of an image's maps on PyTorch. In
float32 on a CPU, relative differences of the order of 1e-6 to 1e-4 are rounding.

examples:
  wordlight study parity scenes --method daam --method occlusion --steps 2 -o out/parity
  wordlight study parity path/to/sd-1.5 --scheduler ddim --prompt "a dog and a cat" -o out/parity
"""


def add_to(studies: Commands) -> None:
    """Add the study to the others."""
    parity = add_command(
        studies,
        "parity",
        "how far apart PyTorch's and Flax's maps of the same images are, method by method",
        epilog=_EPILOG,
    )
    parity.add_argument(
        "model",
        nargs="?",
        default="scenes",
        metavar="MODEL",
        help="as for --model of other commands: a folder, a Hub id, or scenes (default)",
    )
    add_methods(parity, default="every installed one that both can run")
    parity.add_argument(
        "--prompt",
        action="append",
        metavar="TEXT",
        help="what images show, once or more (default: coloured shapes, as scenes draws)",
    )
    add_count(parity, 2)
    parity.add_argument(
        "--steps",
        type=whole_number(1),
        default=4,
        help="how many evenly spaced steps, each compared by itself (default: 4)",
    )
    add_seed(parity)
    add_options(parity, ModelOptions, leave_out=("model", "framework"))
    add_folder(parity, "write the numbers (parity.json) and a page (parity.html) there")
    add_output(parity, bars="progress bar")
    parity.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Sample on PyTorch, explain on both, compare and print."""
    from wordlight.comparisons.studies.parity import (
        HEADINGS,
        as_json,
        rows,
        runnable,
        study_parity,
        write_parity,
    )

    options = ModelOptions.of(arguments)
    one, two = (options.load(framework) for framework in ("torch", "flax"))
    runnable((one, two), arguments.method)  # before anything is drawn
    with ProgressBar[object](desc="comparing maps", unit="steps", disable=arguments.quiet) as bar:
        found = study_parity(
            (one, two),
            arguments.method,
            prompts=arguments.prompt,
            n=arguments.n,
            steps=arguments.steps,
            seed=arguments.seed,
            on_cell=bar.update,
        )
    if arguments.out is not None:
        write_parity(arguments.out, found)
    if arguments.json:
        print(as_json(found))
        return
    images = "1 image" if found.images == 1 else f"{found.images} images"
    print(f"{found.model}, {images}: differences between maps on torch and on flax\n")
    table = [HEADINGS, *rows(found)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADINGS))]
    for row in table:
        cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        print("  ".join([row[0].ljust(widths[0]), *cells]))
    for name, reason in found.left_out.items():
        print(f"left out: {name} ({reason})")
