"""Puts the tables that studies wrote into docs/studies.md: see the commands there."""

from __future__ import annotations

import argparse
from pathlib import Path

from pages import PageError, block, fill

PAGE = Path(__file__).parent / "studies.md"


def main() -> None:
    """Each folder's tables, by the name of their file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page (default: this one's)")
    options = parser.parse_args()
    for folder in options.folders:
        # A study that is a comparison has other texts beside its table.
        texts = sorted(folder.glob("*.txt"))
        tables = [path for path in texts if path.with_suffix(".json").is_file()]
        if not tables:
            parser.error(f"{folder} holds no study's table (NAME.txt beside NAME.json)")
        for path in tables:
            try:
                fill(options.page, path.stem, block(path.read_text("utf-8")))
            except PageError as error:
                parser.error(str(error))


if __name__ == "__main__":
    main()
