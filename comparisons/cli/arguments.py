"""Arguments that several commands have in common."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from typing import Any, TypeAlias

from wordlight.backends.backend import Backend
from wordlight.comparisons.runs.options import ModelOptions, Option, options_of, whole_number

#: What argparse hands out for subcommands; it has no public name.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Commands,
    name: str,
    help_line: str,
    epilog: str = "",
) -> argparse.ArgumentParser:
    """A command's parser, with its line in the overview."""
    return commands.add_parser(
        name,
        help=help_line,
        description=help_line[0].upper() + help_line[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_options(
    parser: argparse.ArgumentParser,
    kind: type,
    *,
    only: Collection[str] = (),
    leave_out: Collection[str] = (),
) -> None:
    """Add the flags of a class of options, or of some; what isn't typed isn't there."""
    for one in options_of(kind):
        if one.name not in leave_out and (not only or one.name in only):
            parser.add_argument(*one.flags, **_of_argparse(one))


def _of_argparse(one: Option) -> dict[str, Any]:
    told = one.help
    if isinstance(one.default, int | float) and not isinstance(one.default, bool):
        told += f" (default: {one.default:g})"
    metavar = {} if one.metavar is None else {"metavar": one.metavar}
    how: dict[str, Any] = {"default": argparse.SUPPRESS, "help": told}
    if one.flags[0].startswith("-"):
        how["dest"] = one.name
    return {**how, **metavar, **one.kind.flag}


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add what names a model, and how it draws."""
    add_options(parser, ModelOptions)


def load_model(arguments: argparse.Namespace) -> Backend:
    """Load the model that ``add_model``'s arguments name; raises ModelLoadError."""
    return ModelOptions.of(arguments).load()


def add_count(parser: argparse.ArgumentParser, default: int) -> None:
    """``-n``, the number of images."""
    parser.add_argument(
        "-n",
        type=whole_number(1),
        default=default,
        metavar="N",
        help=f"the number of images (default: {default})",
    )


def add_steps(parser: argparse.ArgumentParser) -> None:
    """``--steps``: how many a method looks at."""
    parser.add_argument(
        "--steps",
        type=whole_number(1),
        default=4,
        metavar="N",
        help="the number of evenly spaced denoising steps that methods look at (default: 4)",
    )


def add_seed(parser: argparse.ArgumentParser, of: str = "the images' noise") -> None:
    """``--seed``."""
    parser.add_argument(
        "--seed",
        type=whole_number(0),
        default=0,
        metavar="N",
        help=f"the seed of {of} (default: 0)",
    )


def add_budget(parser: argparse.ArgumentParser, what: str) -> None:
    """``--budget``."""
    parser.add_argument(
        "--budget",
        type=whole_number(1),
        metavar="N",
        help=(
            "the highest cost of an image, in forward-equivalents (a forward pass 1, a "
            f"forward-mode product 2, a reverse one 3): {what}"
        ),
    )


def add_output(parser: argparse.ArgumentParser, *, bars: str) -> None:
    """``--json`` and ``--quiet``."""
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help=f"no {bars} on stderr")


def share(text: str) -> float:
    """A type for argparse: a number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0.0 <= number <= 1.0:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {text}")
    return number
