"""Matplotlib's figures as PNG files' bytes."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from matplotlib.figure import Figure


def figure_png(figure: Figure, **options: Any) -> bytes:
    """A figure as PNG; ``options`` are ``savefig``'s. The figure is laid out as it is, once."""
    if (engine := figure.get_layout_engine()) is not None:
        # Else all is drawn once for the layout alone.
        engine.execute(figure)
        figure.set_layout_engine("none")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", **options)
    return buffer.getvalue()
