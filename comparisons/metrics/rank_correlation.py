"""Spearman's rank correlation of two maps."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from wordlight.backends.trajectory import FloatArray


def rank_correlation(one: FloatArray, other: FloatArray) -> float:
    """Spearman's rank correlation of two maps; 1 where they are equal, 0 where one is constant."""
    if np.array_equal(one, other):
        return 1.0
    first, second = rankdata(one), rankdata(other)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
