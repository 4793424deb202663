"""``wordlight compare``: methods against each other, on generated images or a data set."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wordlight.comparisons.cli.arguments import (
    Commands,
    add_budget,
    add_command,
    add_metrics,
    add_model,
    add_output,
    method_options,
    whole_number,
)

if TYPE_CHECKING:
    from wordlight.comparisons.results.comparison import Comparison

#: The exit status when cells failed.
FAILED = 1
#: What `compare` takes as it is typed.
_OPTIONS = (
    "data", "redraw", "masks", "segmenters", "n", "seed", "steps", "calibration", "maps", "budget",
    "metrics", "framework", "device", "scheduler", "damaged",
)  # fmt: skip

_EPILOG = """\
Draws images of prompts that name coloured shapes, finds the shapes in the pixels, and scores how
well each method's map of a word finds what the word names. Thresholds are chosen on images of
their own. Run again with the same --out and settings, it goes on where it was stopped.

Metrics that a run lacks are added to it (--metrics with the same --out): its maps are judged by
them, and nothing is computed twice.

A method that raises an error on an image loses that cell, and not the run: the table says how many
failed, failed/ says why, the exit status is 1, and the same command tries them again.

A whole comparison can be described by a file (--config): TOML or YAML, with the options'
names as keys, methods as a list in which options may be given, and maps and segmenters as tables by
name. Flags override it.

  model = "scenes"
  framework = ["torch", "flax"]
  n = 100
  methods = ["daam", "occlusion", "shuffled-word", {method = "shapley", n_samples = 50}]

In the output folder: report.html (a page to read and to pass on, which needs no other file),
results.parquet (every score), table.txt, table.md, table.csv, table.tex, summary.json, grid.png (a
picture), cells/ and maps/ (by framework, image and method), samples/ (the images with all that made
them), words.parquet (which words are scored, with their masks), words/ (the same by image),
settings.json, command.txt, run.yaml (to repeat the run from with --config).

examples:
  wordlight compare --out out/compare
  wordlight compare -n 8 --method daam --method occlusion --method shuffled-word --out out/few
  wordlight compare --method integrated-gradients --method shapley --budget 200 --out out/equal
  wordlight compare --metrics segmentation,faithfulness,dice --out out/compare
  wordlight compare --maps mine=path/to/maps --out out/mine
  wordlight compare --framework torch --framework flax --out out/both
  wordlight compare --config run.toml --executor ray --workers 8 --out out/large
  wordlight compare --data voc:VOCdevkit/VOC2012 --model MODEL --out out/voc
"""


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "compare",
        "score attribution methods against each other",
        _EPILOG,
        # What isn't typed may stand in the file.
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        metavar="FILE",
        help="a comparison's description (.toml or .yaml), which flags override",
    )
    parser.add_argument(
        "-n",
        type=whole_number(1),
        metavar="IMAGES",
        help="test images (default: 32)",
    )
    add_metrics(parser)
    parser.add_argument(
        "--seed", type=whole_number(0), help="of the images' noise and the resampling (default: 0)"
    )
    parser.add_argument(
        "--steps",
        type=whole_number(1),
        help="how many evenly spaced denoising steps the methods look at (default: 4)",
    )
    parser.add_argument(
        "--calibration",
        type=whole_number(1),
        metavar="IMAGES",
        help="images on which thresholds are chosen (default: 16)",
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where the results go (default: out/compare)",
    )
    add_comparison(parser)
    add_output(parser, bars="progress bars")
    parser.set_defaults(run=run, config=None, json=False, quiet=False)


def add_comparison(parser: argparse.ArgumentParser) -> None:
    """What every comparison takes: methods, data, the model, and where the work is done."""
    parser.add_argument(
        "--method",
        action="append",
        metavar="NAME",
        help=(
            "a method, repeatable (default: daam, input-x-gradient, occlusion and the controls), "
            "also with options (shapley,n_samples=50,name=shapley-50); shuffled-word adds a row "
            "for each method that is no control"
        ),
    )
    parser.add_argument(
        "--data",
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
        metavar="NAME=SEGMENTER",
        help=(
            "a row of a supervised segmenter, to compare with; repeatable. Without weights it is "
            "shown as not measured"
        ),
    )
    parser.add_argument(
        "--maps",
        action="append",
        metavar="NAME=FOLDER",
        help=(
            "a row of maps that you made: <sample>.safetensors files, saved by "
            "AttributionMaps.save, for the images of an earlier run's samples/, or another run's "
            "maps/FRAMEWORK; repeatable"
        ),
    )
    add_budget(
        parser,
        "every method gets as much effort (n_steps, n_samples, ...) as fits for every image; one "
        "that doesn't fit at all is refused before any work",
    )
    add_model(parser, several=True)
    parser.add_argument(
        "--damaged",
        choices=("stop", "recompute"),
        help=(
            "what becomes of a file of the run that can't be read: stop and name it (default), or "
            "make it again and say so"
        ),
    )
    parser.add_argument(
        "--executor",
        choices=("local", "ray"),
        help="where the work is done: here (default), or on a Ray cluster (see docs/runs.md)",
    )
    parser.add_argument(
        "--workers",
        type=whole_number(1),
        metavar="N",
        help=(
            "with ray: how many workers (default: one a GPU or TPU host, else one a machine with "
            "all its cores)"
        ),
    )
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help="with ray: the cluster's (default: the one that RAY_ADDRESS names, else this machine)",
    )


def typed_in(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was typed, by the keys of a run file. Raises ValueError for what can't be."""
    from wordlight.comparisons.metrics.registry import parse

    typed = {key.replace("_", "-"): value for key, value in vars(arguments).items()}
    for flag, key in (("method", "methods"), ("segmenter", "segmenters")):
        if flag in typed:
            typed[key] = typed.pop(flag)
    if "metrics" in typed:
        typed["metrics"] = parse(typed["metrics"])
    if "methods" in typed:
        typed["methods"] = [_method(text) for text in typed["methods"]]
    for flag in ("maps", "segmenters"):
        if flag in typed:
            typed[flag] = _named(flag, typed[flag])
    return typed


def options_of_comparison(asked: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``compare`` beside the model and methods, by the keys of a run file."""
    from wordlight.comparisons.runs.executors import make_executor

    found = {key: asked[key] for key in _OPTIONS if key in asked}
    found["on_error"] = "skip" if asked.get("skip-malformed") else "raise"
    found["executor"] = make_executor(
        asked.get("executor", "local"), asked.get("workers"), asked.get("address")
    )
    return found


@contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Have what went wrong without stopping a run said in a line on stderr."""
    from wordlight.comparisons.datasets import DatasetWarning
    from wordlight.comparisons.runner import RunWarning
    from wordlight.comparisons.runs.executors import WorkersWarning

    with warnings.catch_warnings():
        warnings.showwarning = _warn
        for kind in (DatasetWarning, RunWarning, WorkersWarning):
            warnings.simplefilter("always", kind)
        yield


def status_of(comparison: Comparison) -> int:
    """The exit status, after saying on stderr what failed."""
    if not comparison.failures:
        return 0
    print(
        f"wordlight: {len(comparison.failures)} cells failed, the first: {comparison.failures[0]}",
        file=sys.stderr,
    )
    return FAILED


def run(arguments: argparse.Namespace) -> int:
    """Compare, and print the table or the headline rows as JSON."""
    # scikit-learn and SciPy take seconds to import: not for `--help`.
    from wordlight.comparisons.results.html.page import NAME as PAGE
    from wordlight.comparisons.runner import compare
    from wordlight.comparisons.runs.config_file import read_config

    of_file = read_config(arguments.config) if arguments.config is not None else {}
    asked: dict[str, Any] = {**of_file, **typed_in(arguments)}
    with warnings_on_stderr():
        comparison = compare(
            asked.get("model", "scenes"),
            asked.get("methods"),
            out=Path(asked.get("out", "out/compare")),
            progress=not arguments.quiet,
            command=shlex.join(arguments.command_line),
            **options_of_comparison(asked),
        )
    if arguments.json:
        print(json.dumps(comparison.to_json(), indent=2))
    else:
        print(comparison.text)
        print(f"\nresults, maps and pictures are in {comparison.out}; {PAGE} shows them all")
    return status_of(comparison)


def _warn(message: Warning | str, *_where: object, **_how: object) -> None:
    print(f"wordlight: warning: {message}", file=sys.stderr)


def _method(text: str) -> str | dict[str, Any]:
    name, options = method_options(text)
    return {"method": name, **options} if options else name


def _named(key: str, given: list[str]) -> dict[str, str]:
    flag, what = {
        "maps": ("--maps", "NAME=FOLDER"),
        "segmenters": ("--segmenter", "NAME=SEGMENTER"),
    }[key]
    named: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{flag} takes {what}, not {text!r}")
        if name in named:
            raise ValueError(f"{flag} names {name!r} twice")
        named[name] = value
    return named
