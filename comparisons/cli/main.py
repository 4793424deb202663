"""The command line: ``wordlight attribute | compare | report | runs | data | methods | ...``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import wordlight
from wordlight.backends.backend import MissingCapabilityError
from wordlight.comparisons.cli import (
    app,
    attribute,
    compare,
    data,
    methods,
    metrics,
    models,
    report,
    runs,
    study,
)
from wordlight.comparisons.cli.warned import warnings_as_lines

BAD_INPUT = 2

_EPILOG = """\
examples:
  wordlight attribute "a red circle and a blue square" --method daam -o out/
  wordlight compare -n 32 --out out/compare
  wordlight methods

`wordlight COMMAND --help` says more about each. Exit status: 0; 1 where a comparison's
cells failed; 2 for bad input, with one line on stderr that says what was wrong.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="wordlight",
        description=(
            "Which pixels does each word of a prompt light up? Attribution maps for "
            "text-to-image diffusion models, by many methods, and a fair comparison of them."
        ),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=wordlight.__version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (
        attribute,
        compare,
        report,
        runs,
        data,
        methods,
        metrics,
        models,
        study,
        app,
    ):
        command.add_to(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status, 2 for bad input, 1 where cells failed."""
    arguments = build_parser().parse_args(argv)
    # What was typed, for commands that keep it with their results.
    arguments.command_line = ["wordlight", *(sys.argv[1:] if argv is None else argv)]
    try:
        with warnings_as_lines():
            status: int | None = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has seen enough (`wordlight methods | head`). Python would
        # complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("wordlight: stopped", file=sys.stderr)
        return 130
    except (ValueError, KeyError, OSError, MissingCapabilityError) as error:
        print(f"wordlight: error: {_one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    return status or 0


def _one_line(error: Exception) -> str:
    # A KeyError's own text is the message in quotes.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
