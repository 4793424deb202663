"""Intersection over union of a map that is cut at a threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wordlight.comparisons.metrics.shown_map import Map, Mask, Scale, ShownMap, check, check_sizes
from wordlight.comparisons.metrics.word_metric import WordMetric


def iou(first: Mask, second: Mask) -> float:
    """Intersection over union, 0 to 1; symmetric.

    Raises ValueError for masks of different sizes, and where both are empty.
    """
    check_sizes(first, second)
    union = int(np.logical_or(first, second).sum())
    if not union:
        raise ValueError("both masks are empty: their overlap isn't defined")
    return int(np.logical_and(first, second).sum()) / union


def iou_at(values: Map, mask: Mask, thresholds: Sequence[float]) -> tuple[float, ...]:
    """The IoU with the mask of a map that is cut at each threshold; one sort serves them all.

    A pixel counts from the threshold on (``>=``), so a normalised constant map, which is all ones,
    is the whole image at every threshold.

    Raises ValueError for sizes that differ and for an empty mask.
    """
    check(values, mask)
    order = np.argsort(values, axis=None)
    found = np.concatenate([[0], np.cumsum(mask.ravel()[order][::-1])])
    # In the map's own precision, as a comparison with a Python number is.
    cuts = np.asarray(thresholds, values.dtype)
    counts = values.size - np.searchsorted(values.ravel()[order], cuts, side="left")
    hits = found[counts]
    overlaps = hits / (counts + found[-1] - hits)
    return tuple(float(overlap) for overlap in overlaps)


class IoU(WordMetric):
    """The IoU at one threshold; its mean over words is the mIoU.

    Args:
        name: in results and tables.
        threshold: where the map is cut.
        scale: on which scale; see ``Scale``. The paper of origin (Tang et al., arXiv 2210.04885)
            writes its thresholds as shares of a map's greatest value, and its release takes them
            between its least and greatest; absolute ones only tell maps of one method apart.
    """

    def __init__(self, name: str, threshold: float, scale: Scale = "min-max") -> None:
        super().__init__(name)
        self.threshold = threshold
        self.scale: Scale = scale

    def score(self, shown: ShownMap, mask: Mask) -> float:
        """See ``WordMetric.score``; 0 to 1."""
        return iou_at(shown.on(self.scale), mask, (self.threshold,))[0]
