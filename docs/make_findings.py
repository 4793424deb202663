"""Writes the tables and figures of docs/findings.md: run by ``make findings``."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from leaderboard_tables import about, against_controls, frameworks, on_pictures, read_runs
from pages import block, fill


def main() -> None:
    """From the leaderboard's comparison, and the studies and the comparison beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("many", type=Path, help="the folder of the leaderboard's comparison")
    parser.add_argument("--layers", type=Path, required=True, help="of `wordlight study layers`")
    parser.add_argument(
        "--positions", type=Path, required=True, help="of `wordlight study positions`"
    )
    parser.add_argument(
        "--frameworks", type=Path, required=True, help="of a comparison on two frameworks"
    )
    parser.add_argument(
        "--models", type=Path, nargs="*", default=(), help="of the comparisons on other models"
    )
    parser.add_argument(
        "--pictures", type=Path, nargs="*", default=(), help="of comparisons on given pictures"
    )
    parser.add_argument(
        "--docs", type=Path, default=Path(__file__).parent, help="where the page and images/ are"
    )
    options = parser.parse_args()
    page = options.docs / "findings.md"
    try:
        many, both, *others = read_runs([options.many, options.frameworks, *options.models])
        made = {
            "about": about(many),
            "controls": against_controls(many),
            "layers": block((options.layers / "layers.txt").read_text("utf-8")),
            "positions": block((options.positions / "positions.txt").read_text("utf-8")),
            "frameworks": f"{about(both)}\n\n{frameworks(both)}",
        }
        for run in others:
            made[str(run.settings["model"])] = f"{about(run)}\n\n{against_controls(run)}"
        if options.pictures:
            made["pictures"] = on_pictures(read_runs(options.pictures))
        images = options.docs / "images"
        images.mkdir(exist_ok=True)
        shutil.copyfile(options.layers / "layers.png", images / "findings-layers.png")
        for name, text in made.items():
            fill(page, name, text)
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
