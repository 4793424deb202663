"""Judging: data sets, metrics, the runner, statistics, reports, the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wordlight.comparisons.results.comparison import Comparison as Comparison
    from wordlight.comparisons.results.side_by_side import view as view
    from wordlight.comparisons.runner import compare as compare

__all__ = ["Comparison", "compare", "view"]


def __getattr__(name: str) -> object:
    # Scores need scikit-learn and SciPy, whose import takes seconds: only who compares waits.
    if name == "compare":
        from wordlight.comparisons.runner import compare

        return compare
    if name == "Comparison":
        from wordlight.comparisons.results.comparison import Comparison

        return Comparison
    if name == "view":
        from wordlight.comparisons.results.side_by_side import view

        return view
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
