"""Comparisons whose pictures nobody looks at."""

from __future__ import annotations

from io import BytesIO

import pytest
from PIL import Image


@pytest.fixture(scope="session")
def pixel() -> bytes:
    """A picture as small as can be."""
    buffer = BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def plain_pictures(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, pixel: bytes
) -> None:
    """Leaves out the last step of a comparison's two pictures, and the grid's rows but two: nearly
    half of a small one's time.

    What is shown is still read and laid out. The tests of results, and comparisons that a file
    makes for several of its tests, have their pictures.
    """
    if request.path.parent.name == "results":
        return
    monkeypatch.setattr(
        "wordlight.comparisons.results.grid.figure_png", lambda _figure, **_options: pixel
    )
    monkeypatch.setattr("wordlight.comparisons.results.grid.ROWS", 2)
    monkeypatch.setattr("wordlight.comparisons.results.html.page.cost_plot", lambda *_given: "")
