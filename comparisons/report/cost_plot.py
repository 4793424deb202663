"""Cost against score, as SVG to stand inside a page."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from wordlight.comparisons.cells import FORWARD_EQUIVALENTS
from wordlight.comparisons.report.finished_run import MethodRow

#: Colours that stand for the page's own text and faint lines, in light and in dark.
_INK, _FAINT = "#010203", "#010204"


def cost_plot(rows: Sequence[MethodRow], ceiling: float) -> str:
    """A point a method, numbered as in the table, with its 95 % interval; "" where no row says
    what it cost.

    Text and lines have the colour of the page's text.
    """
    points = [
        (number, row, row.estimates[FORWARD_EQUIVALENTS].mean)
        for number, row in enumerate(rows, start=1)
        if FORWARD_EQUIVALENTS in row.estimates
        and np.isfinite([row.estimates[FORWARD_EQUIVALENTS].mean, row.best.mean]).all()
    ]
    if not points:
        return ""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "wordlight", "font.size": 12}):
        figure = Figure(figsize=(5.4, 3.7), layout="constrained")
        FigureCanvasSVG(figure)
        axis = figure.subplots()
        for number, row, cost in points:
            control = row.family == "control"
            colour = "#8a8f98" if control else "#c2571a" if row.extra else "#2f7fc1"
            low, high = row.best.low, row.best.high
            if np.isfinite([low, high]).all():
                axis.plot([cost, cost], [low, high], color=colour, linewidth=1.4, alpha=0.7)
            axis.plot(
                [cost], [row.best.mean], marker="s" if control else "o", color=colour, markersize=5
            )
            axis.annotate(
                str(number), (cost, row.best.mean), (5, 3), textcoords="offset points", color=_INK
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
        buffer = io.StringIO()
        figure.patch.set_alpha(0)
        axis.patch.set_alpha(0)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _for_page(buffer.getvalue())


def _for_page(svg: str) -> str:
    """The element alone, without addresses, in the page's own colours and scaling with it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) xmlns="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    return svg.replace(_INK, "currentColor").replace(_FAINT, "currentColor")
