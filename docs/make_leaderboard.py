"""Writes the tables and the picture of docs/leaderboard.md: run by ``make leaderboard``."""

from __future__ import annotations

import argparse
from pathlib import Path

from leaderboard_picture import draw_leaderboard
from leaderboard_tables import about, across, by_kind, by_vocabulary, notes, read_runs, scores
from pages import fill


def main() -> None:
    """The first comparison is of most images, the second of all methods."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("many", type=Path, help="the folder of the comparison of most images")
    parser.add_argument("all", type=Path, help="the folder of the comparison of all methods")
    parser.add_argument(
        "further", type=Path, nargs="*", help="comparisons of the same images, of further methods"
    )
    parser.add_argument(
        "--models", type=Path, nargs="*", default=(), help="of the comparisons on other models"
    )
    parser.add_argument(
        "--costly", type=Path, nargs="*", default=(), help="of further methods, on fewer images"
    )
    parser.add_argument(
        "--docs", type=Path, default=Path(__file__).parent, help="where the page and images/ are"
    )
    options = parser.parse_args()
    page = options.docs / "leaderboard.md"
    try:
        many, every, *further = read_runs([options.many, options.all, *options.further])
        others = read_runs(options.models)
        costly = read_runs(options.costly)
        tables = {"many": scores(many), "all": scores(every, *further)}
    except ValueError as error:
        parser.error(str(error))
    fill(page, "kinds-many", by_kind(many))
    draw_leaderboard(many, options.docs / "images" / "leaderboard.png")
    for name, run in (("many", many), ("all", every)):
        fill(page, f"about-{name}", about(run))
        fill(page, name, tables[name])
        fill(page, f"notes-{name}", notes(run))
    for run in others:
        model = str(run.settings["model"])
        fill(page, model, f"{about(run)}\n\n{scores(run)}")
        fill(page, f"kinds-{model}", by_kind(run))
        fill(page, f"vocabulary-{model}", by_vocabulary(run))
        fill(page, f"notes-{model}", notes(run))
    for run in costly:
        name = f"{run.settings['model']}-costly"
        fill(page, name, f"{about(run)}\n\n{scores(run)}")
        fill(page, f"notes-{name}", notes(run))
    if others:
        fill(page, "across", across([many, *others], costly))


if __name__ == "__main__":
    main()
