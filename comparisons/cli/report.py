"""``wordlight report``: a run's page, made again."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from wordlight.comparisons.cli.arguments import Commands, add_command

_EPILOG = """\
Reads what `wordlight compare` left in the folder and writes report.html there: the table with its
intervals, cost against score, breakdowns by kind of word, split and word, the best and the worst
cases of every method as pictures, settings, versions and the command. The page needs no other
file and no network. `wordlight compare` writes it by itself; this makes it again, without a model.

example:
  wordlight report out/compare
"""


def add_to(commands: Commands, line: str) -> None:
    """Add the command, with its line in the overview."""
    parser = add_command(commands, "report", line, _EPILOG)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the --out of a comparison")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Write the page and print where it is."""
    from wordlight.comparisons.results.html import write_report

    path = str(write_report(arguments.folder))
    print(json.dumps({"report": path}) if arguments.json else path)
