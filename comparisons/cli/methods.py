"""``wordlight methods``: what is installed."""

from __future__ import annotations

import argparse
import json

from wordlight.attribution import registry
from wordlight.attribution.attributor import options_of
from wordlight.comparisons.cli.arguments import Commands, add_command


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "methods",
        "list the attribution methods that are installed",
        "A package that registers a class under the entry point group wordlight.attributors is\n"
        "listed here and can be named everywhere.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print name, family, needed primitives and paper of each method."""
    rows = [
        {
            "name": name,
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
    lines = [("name", "family", "needs", "paper")]
    lines += [
        (str(r["name"]), str(r["family"]), ", ".join(r["needs"]) or "-", str(r["paper"]) or "-")
        for r in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    for line in lines:
        cells = [text.ljust(width) for text, width in zip(line, widths, strict=True)]
        print("  ".join(cells).rstrip())
