"""Matplotlib's figures as PNG files' bytes."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from matplotlib.figure import Figure


def figure_png(figure: Figure, **options: Any) -> bytes:
    """A figure as PNG; ``options`` are ``savefig``'s, such as ``dpi``."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", **options)
    return buffer.getvalue()
