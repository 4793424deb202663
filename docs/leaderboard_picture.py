"""The picture of ``docs/leaderboard.md``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from leaderboard_tables import shuffled_of, standing_rows
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wordlight.comparisons.metrics.segmentation import BEST
from wordlight.comparisons.results.finished_run import FinishedRun
from wordlight.comparisons.stats.intervals import Estimate

#: One colour a family, to be told apart without seeing red or green.
_COLOURS = {
    "attention": "#0072b2",
    "gradient": "#d55e00",
    "perturbation": "#cc79a7",
    "control": "#7a7f87",
}


def draw_leaderboard(run: FinishedRun, path: Path) -> None:
    """Every row with its interval, the map of another object's word beside it, the push of the
    whole prompt and the ceiling as lines."""
    rows = standing_rows(run)[::-1]
    other_words = shuffled_of(run)
    figure = Figure(figsize=(8, 1.3 + 0.32 * len(rows)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    push = next((row.best for row in rows if row.name == "guidance-norm"), None)
    if push is not None and not np.isnan(push.low):
        axis.axvspan(push.low, push.high, color=_COLOURS["control"], alpha=0.15, linewidth=0)
    if push is not None:
        axis.axvline(push.mean, color=_COLOURS["control"], linewidth=1, label="guidance-norm")
    axis.axvline(
        float(run.summary["ceiling"][BEST]), color="0.2", linewidth=1, linestyle="--",
        label="ceiling of the latent grid",
    )  # fmt: skip
    for place, row in enumerate(rows):
        colour = _COLOURS.get(row.family, "0.2")
        if row.name in other_words:
            other = other_words[row.name].best
            _interval(axis, other, place - 0.22, _COLOURS["control"])
            axis.plot([other.mean], [place - 0.22], "s", color=_COLOURS["control"], markersize=3.5)
        _interval(axis, row.best, place, colour)
        axis.plot(
            [row.best.mean], [place], "o", color=colour, markersize=6,
            markerfacecolor="white" if row.extra else colour,
        )  # fmt: skip
    axis.set_yticks(range(len(rows)), [row.label for row in rows])
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.set_xlim(0, 1)
    axis.set_xlabel("mIoU of shape nouns at the chosen threshold, with 95 % intervals")
    axis.grid(axis="x", linewidth=0.5, alpha=0.4)
    axis.spines[["top", "right"]].set_visible(False)
    shown = dict.fromkeys(row.family for row in reversed(rows))
    for family in shown:
        axis.plot([], [], "o", color=_COLOURS.get(family, "0.2"), label=family)
    axis.plot(
        [], [], "s", color=_COLOURS["control"], markersize=3.5, label="of another object's word"
    )
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _interval(axis: Axes, estimate: Estimate, place: float, colour: str) -> None:
    if not np.isnan(estimate.low):
        axis.plot([estimate.low, estimate.high], [place, place], color=colour, linewidth=1.5)
