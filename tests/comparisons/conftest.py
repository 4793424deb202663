"""Comparisons whose pictures nobody looks at."""

from __future__ import annotations

import pytest

from tests.comparisons.plain_pictures import leave_out_pictures


@pytest.fixture(autouse=True)
def plain_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what takes time of a comparison's pictures.

    The tests of results, and comparisons that a file makes for several of its tests, have theirs.
    """
    if request.path.parent.name != "results":
        leave_out_pictures(monkeypatch)
