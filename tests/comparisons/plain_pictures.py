"""Comparisons whose pictures nobody looks at."""

from __future__ import annotations

from functools import cache
from io import BytesIO

import pytest
from PIL import Image


@cache
def pixel() -> bytes:
    """A picture as small as can be."""
    buffer = BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "png")
    return buffer.getvalue()


def leave_out_pictures(patch: pytest.MonkeyPatch) -> None:
    """Leave out the last step of a comparison's two pictures, and the grid's rows but two: nearly
    half of a small one's time. What is shown is still read and laid out."""
    patch.setattr(
        "wordlight.comparisons.results.grid.figure_png", lambda _figure, **_options: pixel()
    )
    patch.setattr("wordlight.comparisons.results.grid.ROWS", 2)
    patch.setattr("wordlight.comparisons.results.html.page.cost_plot", lambda *_given: "")
