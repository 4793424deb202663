"""Pages with parts that commands write, each between two comments that name it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from wordlight import load
from wordlight.backends.backend import Backend


class PageError(ValueError):
    """A page has no place for what was made for it."""


def fill(page: Path, name: str, text: str) -> None:
    """Put a text between ``<!-- NAME -->`` and ``<!-- /NAME -->``.

    Raises PageError where the page hasn't both, one after the other.
    """
    before, opening, rest = page.read_text("utf-8").partition(f"<!-- {name} -->\n")
    _, closing, after = rest.partition(f"<!-- /{name} -->")
    if not closing:
        raise PageError(f"{page} has no place for {name}: <!-- {name} --> and <!-- /{name} -->")
    page.write_text(f"{before}{opening}{text.rstrip()}\n{closing}{after}", "utf-8")


def block(text: str) -> str:
    """A text that a page shows as it is, in columns."""
    return f"```\n{text.rstrip()}\n```"


def write_table(
    description: str, page: str, name: str, n: int, measured: Callable[[Backend, int], str]
) -> None:
    """Run the command of a script that measures a table: fill a method's page with it, or a file of
    its own (``--out``), and print it.

    Args:
        description: of the script.
        page: of the method, a file's name in docs/methods.
        name: of the place on the page.
        n: how many images are looked at where ``-n`` isn't given.
        measured: returns the table, from a model and the number of images.
    """
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("-n", type=int, default=n, help=f"images of each split ({n})")
    parser.add_argument("--model", default="scenes", help="(default: scenes)")
    parser.add_argument("--out", type=Path, help="a file of its own for the table")
    options = parser.parse_args()
    table = measured(load(options.model), options.n)
    if options.out is None:
        fill(Path(__file__).parent / "methods" / page, name, table)
    else:
        options.out.write_text(table + "\n", "utf-8")
    print(table)
