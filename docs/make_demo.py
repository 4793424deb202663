"""Puts the table and the picture of ``make demo`` into docs/demo.md."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from pages import PageError, fill


def main() -> None:
    """Take ``table.md`` and ``grid.png`` of a comparison's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder of the comparison")
    parser.add_argument(
        "--docs", type=Path, default=Path(__file__).parent, help="where the page and images/ are"
    )
    options = parser.parse_args()
    try:
        fill(options.docs / "demo.md", "table", (options.folder / "table.md").read_text("utf-8"))
        shutil.copyfile(options.folder / "grid.png", options.docs / "images" / "grid.png")
    except (PageError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
