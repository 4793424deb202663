"""Cost against score, as SVG to stand inside a page."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from wordlight.comparisons.results.finished_run import MethodRow
from wordlight.comparisons.store.cells import FORWARD_EQUIVALENTS

#: Colours that stand for the page's own text and faint lines, in light and in dark.
_INK, _FAINT = "#010203", "#010204"
#: Left, lower, right and upper end, in points.
Box: TypeAlias = tuple[float, float, float, float]


def cost_plot(rows: Sequence[MethodRow], ceiling: float) -> str:
    """A point a method, numbered as in the table, with its 95 % interval; "" where no row says
    what it cost.

    Text and lines have the colour of the page's text.
    """
    points = [
        (number, row, row.estimates[FORWARD_EQUIVALENTS].mean)
        for number, row in enumerate((row for row in rows if not row.reference), start=1)
        if FORWARD_EQUIVALENTS in row.estimates
        and np.isfinite([row.estimates[FORWARD_EQUIVALENTS].mean, row.best.mean]).all()
    ]
    if not points:
        return ""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "wordlight", "font.size": 12}):
        figure = Figure(figsize=(5.4, 3.7), layout="constrained")
        FigureCanvasSVG(figure)
        axis = figure.subplots()
        for _, row, cost in points:
            control = row.family == "control"
            colour = "#8a8f98" if control else "#c2571a" if row.extra else "#2f7fc1"
            low, high = row.best.low, row.best.high
            if np.isfinite([low, high]).all():
                axis.plot([cost, cost], [low, high], color=colour, linewidth=1.4, alpha=0.7)
            axis.plot(
                [cost], [row.best.mean], marker="s" if control else "o", color=colour, markersize=5
            )
        axis.axhline(ceiling, color=_FAINT, linewidth=1, linestyle="--")
        axis.annotate(
            "ceiling", (1, ceiling), (-2, -13), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", color=_INK,
        )  # fmt: skip
        # Controls cost nothing, and have a place left of 1.
        axis.set_xscale("symlog", linthresh=1, linscale=0.5)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_xlim(-0.15, max(10, 2 * max(cost for _, _, cost in points)))
        axis.set_ylim(0, 1)
        axis.set_xlabel("cost of an image, forward-equivalents", color=_INK)
        axis.set_ylabel("mIoU at the chosen threshold", color=_INK)
        axis.tick_params(colors=_INK)
        axis.grid(color=_FAINT, linewidth=0.5, alpha=0.25)
        for side, spine in axis.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(_FAINT)
        figure.draw_without_rendering()
        _number(axis, figure.dpi, [(number, cost, row.best.mean) for number, row, cost in points])
        buffer = io.StringIO()
        figure.patch.set_alpha(0)
        axis.patch.set_alpha(0)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _for_page(buffer.getvalue())


#: Where a point's number may stand: to its lower left corner, in points, the best place first.
_PLACES = tuple((x, y) for x in (5, -5) for y in (3, -4, -11, 10, -18, 17))


def _number(axis: Axes, dpi: float, points: Sequence[tuple[int, float, float]]) -> None:
    """Write each point's number beside it, where neither another number nor a point stands."""
    inch = dpi / 72
    places = axis.transData.transform([(x, y) for _, x, y in points]) / inch
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in places]
    for (number, cost, score), (x, y) in zip(points, places, strict=True):
        width, height = 7.5 * len(str(number)), 10
        boxes = []
        for right, up in _PLACES:
            left = x + right if right > 0 else x + right - width
            boxes.append((left, y + up, left + width, y + up + height))
        free = (k for k, box in enumerate(boxes) if not any(_overlap(box, t) for t in taken))
        chosen = next(free, 0)
        taken.append(boxes[chosen])
        right, up = _PLACES[chosen]
        axis.annotate(
            str(number), (cost, score), (right, up), textcoords="offset points", color=_INK,
            ha="left" if right > 0 else "right",
        ).set_in_layout(False)  # fmt: skip


def _overlap(one: Box, other: Box) -> bool:
    return (
        one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
    )  # fmt: skip


def _for_page(svg: str) -> str:
    """The element alone, without addresses, in the page's own colours and scaling with it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) xmlns="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    return svg.replace(_INK, "currentColor").replace(_FAINT, "currentColor")
