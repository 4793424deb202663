"""``wordlight methods``: what is installed."""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from typing import Any, get_args

from wordlight.attribution import registry
from wordlight.attribution.attributor import Family, options_of
from wordlight.comparisons.cli.arguments import Commands, add_command


def add_to(commands: Commands, line: str) -> None:
    """Add the command, with its line in the overview."""
    parser = add_command(
        commands,
        "methods",
        line,
        "A package that registers a class under the entry point group wordlight.attributors is\n"
        "listed here and can be named everywhere.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print each method's question and paper, by family; as JSON also what it needs and takes."""
    rows = [
        {
            "name": name,
            "question": kind.question,
            "family": kind.family,
            "needs": sorted(kind.needs),
            "paper": kind.paper,
            "options": options_of(kind),
        }
        for name, kind in registry.available().items()
    ]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    column = max(len(str(row["name"])) for row in rows) + 4
    for family in get_args(Family):
        of_family = [row for row in rows if row["family"] == family]
        if of_family:
            lines = [_line(row, column) for row in of_family]
            print("\n".join([f"{family}:", *lines, ""]))
    print("With --json: each method's options too, and what it needs of a model.")


def _line(row: dict[str, Any], column: int) -> str:
    source = f" ({row['paper']})" if row["paper"] else ""
    return textwrap.fill(
        f"{row['question']}{source}".strip() or "-",
        max(min(shutil.get_terminal_size().columns, 100), column + 40),
        initial_indent=f"  {row['name']}".ljust(column),
        subsequent_indent=" " * column,
        break_on_hyphens=False,
    )
