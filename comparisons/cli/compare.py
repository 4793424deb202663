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
from typing import TYPE_CHECKING

from wordlight.comparisons.cli.arguments import (
    Commands,
    add_command,
    add_options,
    add_output,
)
from wordlight.comparisons.runs.plan import Arguments
from wordlight.comparisons.wording import counted

if TYPE_CHECKING:
    from wordlight.comparisons.results.comparison import Comparison

#: The exit status when cells failed.
FAILED = 1

_EPILOG = """\
Draws images of prompts that name coloured shapes or real things, finds these in the pixels, and
scores how well each method's map of a word finds what the word names. Thresholds are chosen on
images of their own. Run again with the same --out and settings, it goes on where it was stopped.

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


def add_to(commands: Commands, line: str) -> None:
    """Add the command, with its line in the overview."""
    parser = add_command(commands, "compare", line, _EPILOG)
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        metavar="FILE",
        help="a comparison's description (.toml or .yaml), which flags override",
    )
    add_options(parser, Arguments)
    add_output(parser, bars="progress bars")
    parser.set_defaults(run=run)


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
        f"wordlight: {counted(len(comparison.failures), 'cell')} failed, the first: "
        f"{comparison.failures[0]}",
        file=sys.stderr,
    )
    return FAILED


def run(arguments: argparse.Namespace) -> int:
    """Compare, and print the table or the headline rows as JSON."""
    # SciPy and pyarrow take seconds to import: not for `--help`.
    from wordlight.comparisons.results.html.page import NAME as PAGE
    from wordlight.comparisons.runner import compare
    from wordlight.comparisons.runs.config_file import read_config

    of_file = read_config(arguments.config) if arguments.config is not None else {}
    asked = {"out": Path("out/compare"), **of_file, **Arguments.typed(arguments)}
    with warnings_on_stderr():
        comparison = compare(
            **asked,
            progress=not arguments.quiet,
            command=shlex.join(arguments.command_line),
        )
    if arguments.json:
        print(json.dumps(comparison.to_json(), indent=2))
    else:
        print(comparison.text)
        print(f"\nresults, maps and pictures are in {comparison.out}; {PAGE} shows them all")
    return status_of(comparison)


def _warn(message: Warning | str, *_where: object, **_how: object) -> None:
    print(f"wordlight: warning: {message}", file=sys.stderr)
