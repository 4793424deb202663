"""The command line: ``wordlight attribute | compare | report | runs | data | methods | ...``."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from wordlight.comparisons.cli.terminal import escaped_output

BAD_INPUT = 2
#: Of errors that nobody foresaw: BSD's EX_SOFTWARE.
INTERNAL = 70
#: In the environment, it has errors show where they were raised.
DEBUG = "WORDLIGHT_DEBUG"
#: In characters, of an error's line.
_LONGEST_LINE = 1500

#: Every command's line in the overview. Their modules bring imports of a second or three: each is
#: read when its command is typed.
_COMMANDS = {
    "attribute": "draw an image and show what each word lights up",
    "compare": "score attribution methods against each other",
    "report": "write the page of a finished comparison",
    "runs": "list finished and unfinished comparisons, show or compare them",
    "data": "make and check data sets",
    "methods": "list the attribution methods that are installed",
    "metrics": "list the metrics that are installed",
    "models": "list the embedded models, and how to name others",
    "app": "draw and explain in a browser",
    "completion": "print a script that has a shell complete commands",
    "study": "study a model",
    "reproduce": "make a paper's tables again",
}

_EPILOG = """\
examples:
  wordlight attribute "a red circle and a blue square" --method daam -o out/
  wordlight compare -n 32 --out out/compare
  wordlight methods

`wordlight COMMAND --help` says more about each. Exit status: 0; 1 where a comparison's
cells failed; 2 for bad input, with one line on stderr that says what was wrong; 70 for an error of
wordlight's own (WORDLIGHT_DEBUG=1 shows where it was raised); 130 where it was stopped.
"""


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser of all commands; of ``only`` one of them, beside the others' lines, where that is
    said."""
    import wordlight

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
    for name, line in _COMMANDS.items():
        if only in (None, name):
            import_module(f"wordlight.comparisons.cli.{name}").add_to(commands, line)
        else:
            commands.add_parser(name, help=line)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status, as ``wordlight --help`` says."""
    with escaped_output():
        try:
            status = _run(argv)
            sys.stdout.flush()
            return status
        except BrokenPipeError:
            # Whoever read the output has seen enough (`wordlight methods | head`). Python would
            # complain once more when it closes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            print("wordlight: stopped", file=sys.stderr)
            return 130
        except Exception as error:
            return _said(error)


def _run(argv: Sequence[str] | None) -> int:
    typed = list(sys.argv[1:] if argv is None else argv)
    # Imports take seconds, in which a command can be stopped too.
    arguments = build_parser(only=typed[0] if typed else "").parse_args(typed)
    from wordlight.comparisons.cli.warned import warnings_as_lines

    # What was typed, for commands that keep it with their results.
    arguments.command_line = ["wordlight", *typed]
    with warnings_as_lines():
        status: int | None = arguments.run(arguments)
    return status or 0


def _said(error: Exception) -> int:
    """Print an error in one line; gives the exit status."""
    from wordlight.backends.backend import MissingCapabilityError

    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    if isinstance(error, ValueError | KeyError | OSError | MissingCapabilityError):
        print(f"wordlight: error: {_one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    file = _file_of(error)
    at_hand = f"at {file}, " if file else ""
    print(
        f"wordlight: error: {type(error).__name__}: {_one_line(error)} ({at_hand}raised in "
        f"{_place_of(error)}; {DEBUG}=1 shows how it came there)",
        file=sys.stderr,
    )
    return INTERNAL


def _one_line(error: Exception) -> str:
    # A KeyError's own text is the message in quotes.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    line = " ".join(text.split()) or type(error).__name__
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]} ..."


def _file_of(error: Exception) -> Path | None:
    """The file that was being looked at, as the innermost call that has a path knows it."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        for value in reversed(list(frame.f_locals.values())):
            if isinstance(value, Path) and value.is_file():
                return value
    return None


def _place_of(error: Exception) -> str:
    """The last place in this package that an error came through, as ``file.py:line``."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "wordlight" in Path(frame.filename).parts] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "an unknown place"


if __name__ == "__main__":
    sys.exit(main())
