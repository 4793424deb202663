"""A contact sheet: images with their prompts, good and bad ones as they come."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wordlight.backends.arrays_file import write_atomically
from wordlight.comparisons.results.figures import figure_png

_COLUMNS = 8


@dataclass(frozen=True)
class Drawing:
    """One image, what was asked for, and whether all of it is there."""

    prompt: str
    image: npt.NDArray[np.uint8]
    right: bool


def write_sheet(path: Path, drawings: Sequence[Drawing]) -> None:
    """Write the drawings as one PNG; prompts that were followed in all are marked with a tick."""
    rows = -(-len(drawings) // _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * 1.75, rows * 2.35), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, drawing in zip(axes, drawings, strict=False):
        axis.imshow(drawing.image, interpolation="nearest")
        mark, colour = ("✓", "#186a3b") if drawing.right else ("✗", "#a93226")
        text = textwrap.fill(f"{mark} {drawing.prompt}", 27)
        # Four lines hold the longest prompt, so that all images stay in line.
        lines = text.split("\n")
        text = "\n".join([*[" "] * (4 - len(lines)), *lines])
        axis.set_title(text, fontsize=7, color=colour, loc="left")
    write_atomically(path, figure_png(figure))
