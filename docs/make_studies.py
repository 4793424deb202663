"""Puts the tables that studies wrote into docs/studies.md: see the commands there."""

from __future__ import annotations

import argparse
from pathlib import Path

PAGE = Path(__file__).parent / "studies.md"


def main() -> None:
    """Each folder's tables, by the name of their file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    text = PAGE.read_text("utf-8")
    for path in (p for folder in parser.parse_args().folders for p in sorted(folder.glob("*.txt"))):
        before, opening, rest = text.partition(f"<!-- {path.stem} -->\n")
        _, closing, after = rest.partition(f"<!-- /{path.stem} -->")
        if not closing:
            parser.error(f"{PAGE} has no place for {path}")
        text = f"{before}{opening}```\n{path.read_text('utf-8')}```\n{closing}{after}"
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
