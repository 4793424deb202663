"""``wordlight compare``: methods against each other, on generated images."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

from wordlight.backends.arrays_file import write_atomically
from wordlight.comparisons.commands.arguments import (
    Commands,
    add_budget,
    add_command,
    add_model,
    add_output,
    whole_number,
)

_EPILOG = """\
Draws images of prompts that name coloured shapes, finds the shapes in the pixels, and scores how
well each method's map of a word finds what the word names. Thresholds are chosen on images of
their own. Run again with the same --out and settings, it goes on where it was stopped.

In the output folder: report.html (a page to read and to pass on, which needs no other file),
results.parquet (every score), table.txt, table.md, summary.json, grid.png (a picture), cells/ and
maps/ (by framework, image and method), samples/ (the images with all that made them),
words.parquet (which words are scored, with their masks), settings.json, command.txt.

examples:
  wordlight compare --out out/compare
  wordlight compare -n 8 --method daam --method occlusion --method shuffled-word --out out/few
  wordlight compare --method integrated-gradients --method shapley --budget 200 --out out/equal
  wordlight compare --maps mine=path/to/maps --out out/mine
  wordlight compare --data voc:VOCdevkit/VOC2012 --model MODEL --out out/voc
"""


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "compare", "score attribution methods against each other", _EPILOG
    )
    parser.add_argument(
        "-n",
        type=whole_number(1),
        default=32,
        metavar="IMAGES",
        help="test images (default: 32)",
    )
    parser.add_argument(
        "--method",
        action="append",
        metavar="NAME",
        help=(
            "a method, repeatable (default: daam, input-x-gradient, occlusion and the controls); "
            "shuffled-word adds a row for each method that is no control"
        ),
    )
    parser.add_argument(
        "--data",
        default="scenes",
        metavar="DATA",
        help=(
            "what to judge on: scenes (default; the model draws), scenes,test=SPLIT, "
            "rendered-scenes, or a data set as FORMAT:PATH (coco, coco-gen, folder, "
            "imagenet-segmentation, voc; see docs/datasets.md)"
        ),
    )
    parser.add_argument(
        "--skip-malformed",
        action="store_true",
        help="leave out and count what is malformed in a data set, instead of stopping at it",
    )
    parser.add_argument(
        "--redraw",
        action="store_true",
        help=(
            "draw a data set's images again from their prompts and seeds, for maps of the very "
            "drawing; else they are inverted"
        ),
    )
    parser.add_argument(
        "--masks",
        metavar="SEGMENTER",
        help=(
            "what makes the masks of images that have none: mask2former:MODEL, oneformer:MODEL or "
            "clipseg:MODEL, with a Hub id or a folder"
        ),
    )
    parser.add_argument(
        "--segmenter",
        action="append",
        default=[],
        metavar="NAME=SEGMENTER",
        help=(
            "a row of a supervised segmenter, to compare with; repeatable. Without weights it is "
            "shown as not measured"
        ),
    )
    parser.add_argument(
        "--maps",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help=(
            "a row of maps that you made: <sample>.safetensors files, saved by "
            "AttributionMaps.save, for the images of an earlier run's samples/; repeatable"
        ),
    )
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, help="of the images' noise (default: 0)"
    )
    parser.add_argument(
        "--steps",
        type=whole_number(1),
        default=4,
        help="how many evenly spaced denoising steps the methods look at (default: 4)",
    )
    add_budget(
        parser,
        "every method gets as much effort (n_steps, n_samples, ...) as fits for every image; one "
        "that doesn't fit at all is refused before any work",
    )
    parser.add_argument(
        "--calibration",
        type=whole_number(1),
        default=16,
        metavar="IMAGES",
        help="images on which thresholds are chosen (default: 16)",
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("out/compare"),
        metavar="FOLDER",
        help="where the results go (default: out/compare)",
    )
    add_model(parser)
    add_output(parser, bars="progress bars")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Compare, and print the table or the headline rows as JSON."""
    maps = {name: Path(folder) for name, folder in _named("--maps", arguments.maps).items()}
    segmenters = _named("--segmenter", arguments.segmenter)
    # scikit-learn and SciPy take seconds to import: not for `--help`.
    from wordlight.comparisons.report import write_report
    from wordlight.comparisons.report.finished_run import COMMAND
    from wordlight.comparisons.runner import compare

    comparison = compare(
        arguments.model,
        arguments.method,
        out=arguments.out,
        data=arguments.data,
        on_error="skip" if arguments.skip_malformed else "raise",
        redraw=arguments.redraw,
        masks=arguments.masks,
        segmenters=segmenters,
        n=arguments.n,
        seed=arguments.seed,
        steps=arguments.steps,
        calibration=arguments.calibration,
        maps=maps,
        budget=arguments.budget,
        framework=arguments.framework,
        device=arguments.device,
        progress=not arguments.quiet,
    )
    typed = shlex.join(arguments.command_line) + "\n"
    write_atomically(comparison.out / COMMAND, typed.encode("utf-8", "surrogateescape"))
    page = write_report(comparison.out)
    if arguments.json:
        print(json.dumps(comparison.to_json(), indent=2))
    else:
        print(comparison.text)
        print(f"\nresults, maps and pictures are in {comparison.out}; {page.name} shows them all")


def _named(flag: str, given: list[str]) -> dict[str, str]:
    what = {"--maps": "NAME=FOLDER", "--segmenter": "NAME=SEGMENTER"}[flag]
    named: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{flag} takes {what}, not {text!r}")
        if name in named:
            raise ValueError(f"{flag} names {name!r} twice")
        named[name] = value
    return named
