"""``wordlight runs``: what runs there are, one of them, or two side by side."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wordlight.comparisons.cli.arguments import Commands, add_command
from wordlight.comparisons.wording import counted

if TYPE_CHECKING:
    from wordlight.comparisons.stats.intervals import Estimate

_EPILOG = """\
A run is what `wordlight compare --out FOLDER` leaves in its folder: settings, images, one cell of
scores for each framework, image and method, and the tables. It is "finished" when every cell is
there, "running" while a process is at it, "stopped" when neither, and has "failed cells" where a
method raised an error; the command that started it goes on with it or tries those again.

examples:
  wordlight runs list out/
  wordlight runs show out/compare
  wordlight runs diff out/first out/second --json
"""


def add_to(commands: Commands, line: str) -> None:
    """Add the command, with its line in the overview."""
    parser = add_command(commands, "runs", line, _EPILOG)
    verbs = parser.add_subparsers(title="what to do", metavar="VERB", required=True)
    listing = add_command(verbs, "list", "every run in and below a folder, and how far it is")
    listing.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("out"),
        help="the folder to search (default: out)",
    )
    listing.set_defaults(run=_list)
    show = add_command(verbs, "show", "one run: its settings, the versions it ran with, its table")
    show.add_argument("folder", type=Path, help="the run's folder")
    show.set_defaults(run=_show)
    diff = add_command(
        verbs,
        "diff",
        "two runs: the settings that differ, and each method's difference",
        "Differences of the headline mIoU are the second run's less the first's, over the images "
        "that\nboth were judged on, with a paired 95 % t interval over images.",
    )
    diff.add_argument("first", type=Path, help="a run's folder")
    diff.add_argument("second", type=Path, help="another run's folder")
    diff.set_defaults(run=_diff)
    for one in (listing, show, diff):
        one.add_argument("--json", action="store_true", help="print JSON on stdout")


def _list(arguments: argparse.Namespace) -> None:
    from wordlight.comparisons.results.text_tables import aligned
    from wordlight.comparisons.runs.listing import COLUMNS, find_runs, one_line, read_run

    runs = []
    for folder in find_runs(arguments.folder):
        try:
            runs.append(read_run(folder))
        except ValueError as error:
            # A study's folder, a data set's, or a damaged one: it doesn't hide the others.
            print(f"wordlight: left out: {error}", file=sys.stderr)
    if arguments.json:
        print(json.dumps([run.to_json() for run in runs], indent=2))
    elif runs:
        print(aligned([COLUMNS, *(one_line(run) for run in runs)], 0))
    else:
        print(f"no runs in {arguments.folder}")


def _show(arguments: argparse.Namespace) -> None:
    from wordlight.comparisons.runs.listing import dump, one_line, read_run, read_table
    from wordlight.comparisons.store.failures import recorded

    run = read_run(arguments.folder)
    table = read_table(arguments.folder)
    failed = [str(failure) for failure in recorded(arguments.folder)]
    if arguments.json:
        print(json.dumps({**run.to_json(), "table": table, "failures": failed}, indent=2))
        return
    folder, started, model, images, state, rows = one_line(run)
    on = f"{model}, {counted(int(images), 'image')}"
    print(f"{folder}: {state}\nstarted {started} on {on}; rows: {rows}")
    print("\nversions: " + ", ".join(f"{name} {v}" for name, v in run.versions.items()))
    print(f"\nsettings:\n{dump(run.settings)}")
    if failed:
        print("\nfailed cells:\n" + "\n".join(f"  {one}" for one in failed))
    print(f"\n{table}" if table else "\nno table yet: the run isn't finished")


def _diff(arguments: argparse.Namespace) -> None:
    from wordlight.comparisons.results.text_tables import aligned
    from wordlight.comparisons.runs.listing import compare_runs

    found = compare_runs(arguments.first, arguments.second)
    if arguments.json:
        print(json.dumps(found.to_json(), indent=2))
        return
    print("settings that differ:" if found.settings else "the same settings")
    for line in found.settings:
        print(f"  {line}")
    first, second = found.images
    print(f"\nimages: {first} and {second}; {found.same_images} of them the same, pixel for pixel")
    lines = [["method", "mIoU@best, first", "second", "second - first [95 %]"]]
    for one in found.methods:
        difference = "not the same images" if one.difference is None else _signed(one.difference)
        lines.append([one.method, _number(one.first), _number(one.second), difference])
    print("\n" + aligned(lines, 0))
    for folder, names in zip((arguments.first, arguments.second), found.only, strict=True):
        if names:
            print(f"only in {folder}: {', '.join(names)}")


def _number(estimate: Estimate) -> str:
    return "-" if math.isnan(estimate.mean) else f"{estimate.mean:.3f}"


def _signed(estimate: Estimate) -> str:
    if math.isnan(estimate.low):
        return f"{estimate.mean:+.3f}"
    return f"{estimate.mean:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"
