"""Arguments that several commands have in common."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from wordlight.backends.backend import Backend

#: What argparse hands out for subcommands; it has no public name.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Commands,
    name: str,
    help_line: str,
    epilog: str = "",
    argument_default: str | None = None,
) -> argparse.ArgumentParser:
    """A command's parser, with its line in the overview."""
    return commands.add_parser(
        name,
        help=help_line,
        description=help_line[0].upper() + help_line[1:] + ".",
        epilog=epilog,
        argument_default=argument_default,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_model(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """``--model``, ``--framework``, ``--device`` and ``--scheduler``; with ``several`` frameworks
    may be named, and what isn't typed isn't there."""
    parser.add_argument(
        "--model",
        default=argparse.SUPPRESS if several else "scenes",
        metavar="MODEL",
        help=(
            "an embedded model (scenes, the default, or scenes-b), a folder in diffusers' format, "
            "or a Hub id (safetensors only)"
        ),
    )
    parser.add_argument(
        "--framework",
        choices=("torch", "flax"),
        action="append" if several else "store",
        default=argparse.SUPPRESS if several else None,
        help=(
            "whose backend runs the model (default: torch where it is installed, else flax)"
            + ("; repeatable: the first draws, all make maps of the same images" * several)
        ),
    )
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        help="cpu, cuda, cuda:1, ... (default: a GPU where there is one)",
    )
    add_scheduler(parser)


def add_scheduler(parser: argparse.ArgumentParser) -> None:
    """``--scheduler``."""
    parser.add_argument(
        "--scheduler",
        choices=("ddim", "euler"),
        help=(
            "go through the checkpoint's noise by this scheduler in place of its own; needed on "
            "flax where that is another, as Stable Diffusion 1.x's PNDM (default: its own)"
        ),
    )


def load_model(arguments: argparse.Namespace) -> Backend:
    """The model that ``add_model``'s arguments name; raises ModelLoadError."""
    # Frameworks are imported when a model is loaded, and not before.
    from wordlight.backends.loading import load

    return load(
        arguments.model,
        framework=arguments.framework,
        device=arguments.device,
        scheduler=arguments.scheduler,
    )


def add_count(parser: argparse.ArgumentParser, default: int, what: str = "images") -> None:
    """``-n``, of ``what``."""
    parser.add_argument(
        "-n",
        type=whole_number(1),
        default=default,
        metavar="N",
        help=f"{what} (default: {default})",
    )


def add_steps(parser: argparse.ArgumentParser) -> None:
    """``--steps``: how many a method looks at."""
    parser.add_argument(
        "--steps",
        type=whole_number(1),
        default=4,
        metavar="N",
        help="how many evenly spaced denoising steps methods look at (default: 4)",
    )


def add_seed(parser: argparse.ArgumentParser, of: str = "the images' noise") -> None:
    """``--seed``."""
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, metavar="N", help=f"of {of} (default: 0)"
    )


def add_folder(parser: argparse.ArgumentParser, help_line: str) -> None:
    """``-o``/``--out``, where a command writes if it is named."""
    parser.add_argument("-o", "--out", type=Path, metavar="FOLDER", help=help_line)


def add_methods(parser: argparse.ArgumentParser, *, default: str) -> None:
    """``--method``, repeatable; ``default`` says which those are where none is named."""
    parser.add_argument(
        "--method",
        action="append",
        metavar="NAME",
        help=f"a method, repeatable; `wordlight methods` lists them (default: {default})",
    )


def add_metrics(parser: argparse.ArgumentParser) -> None:
    """``--metrics``."""
    parser.add_argument(
        "--metrics",
        metavar="NAME,...",
        help=(
            "what is measured, by metrics' names or groups of them: segmentation (default), "
            "faithfulness (or order, removal, infidelity, sensitivity), dice, boundary-f, ...; "
            "options follow a name (infidelity,sets=4); `wordlight metrics` lists them"
        ),
    )


def method_options(text: str) -> tuple[str, dict[str, Any]]:
    """``NAME,OPTION=VALUE,...`` apart; raises ValueError.

    >>> method_options("integrated-gradients,n_steps=16,wrt=tokens")
    ('integrated-gradients', {'n_steps': 16, 'wrt': 'tokens'})
    """
    name, *parts = text.split(",")
    options: dict[str, Any] = {}
    for part in parts:
        option, equals, value = part.partition("=")
        if not (name and option and equals and value):
            raise ValueError(f"a method is NAME or NAME,OPTION=VALUE,..., not {text!r}")
        if option in options:
            raise ValueError(f"{text!r} says {option} twice")
        try:
            options[option] = json.loads(value)
        except json.JSONDecodeError:
            options[option] = value
    return name, options


def add_budget(parser: argparse.ArgumentParser, what: str) -> None:
    """``--budget``."""
    parser.add_argument(
        "--budget",
        type=whole_number(1),
        metavar="N",
        help=(
            "the most that an image may cost, in forward-equivalents (a forward pass 1, a "
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


def whole_number(least: int) -> Callable[[str], int]:
    """A type for argparse: a whole number, ``least`` or more."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"must be {least} or more, not {number}")
        return number

    return parse
