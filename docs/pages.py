"""Pages with parts that commands write, each between two comments that name it."""

from __future__ import annotations

from pathlib import Path


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
