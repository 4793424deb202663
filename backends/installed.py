"""Entry points of installed packages."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any


def entry_points(group: str) -> list[metadata.EntryPoint]:
    """Return what installed packages register in a group, in the order of the names.

    The metadata of all packages are read once for a state of the folders on ``sys.path``.
    """
    points = _all(tuple((place, _changed(place)) for place in sys.path)).select(group=group)
    return sorted(points, key=lambda point: point.name)


def _changed(place: str) -> int | None:
    try:
        return Path(place).stat().st_mtime_ns
    except OSError:
        return None


@lru_cache(maxsize=2)
def _all(places: tuple[tuple[str, int | None], ...]) -> Any:
    # Of another type before Python 3.12; both select.
    return metadata.entry_points()
