"""Threshold-free: how a map ranks the pixels inside a mask among those outside."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from wordlight.comparisons.metrics.shown_map import Map, Mask, check


def average_precision(values: Map, mask: Mask) -> float:
    """Area under the precision-recall curve of the raw map's pixels, 0 to 1.

    The step sum of precision times gained recall, as scikit-learn's. Equal values count together,
    so a constant map gets the mask's share of the image.
    """
    check(values, mask)
    order = np.argsort(values, axis=None)[::-1]
    ranked = values.ravel()[order]
    # Pixels down to each distinct value, and how many of them lie inside the mask.
    counts = np.append(np.flatnonzero(np.diff(ranked)), ranked.size - 1) + 1
    hits = np.cumsum(mask.ravel()[order])[counts - 1]
    # A sum of rounded shares: a perfect map would score 1.0000000000000002 now and then.
    return min(1.0, float(np.diff(hits, prepend=0) @ (hits / counts)) / int(hits[-1]))


def auroc(values: Map, mask: Mask) -> float | None:
    """Return the share of pairs in which a pixel inside the mask has a higher value than one
    outside, 0 to 1, ties half.

    Mann and Whitney's statistic; scikit-learn's curve takes ten times as long. A constant map gets
    1/2. None where nothing lies outside the mask.
    """
    check(values, mask)
    if mask.all():
        return None
    inside = int(mask.sum())
    ranks = float(rankdata(values.ravel())[mask.ravel()].sum(dtype=np.float64))
    return (ranks - inside * (inside + 1) / 2) / (inside * (mask.size - inside))
