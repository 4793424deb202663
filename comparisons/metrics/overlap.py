"""Intersection over union of a map that is cut at a threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wordlight.comparisons.metrics.judged import JudgedWord
from wordlight.comparisons.metrics.shown_map import Map, Mask, Scale, check, check_masks


def iou(first: Mask, second: Mask) -> float:
    """Intersection over union, 0 to 1; symmetric.

    Raises ValueError for masks of different sizes, and where both are empty.
    """
    check_masks(first, second)
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


def iou_of_word(
    word: JudgedWord, *, threshold: float | None = None, scale: Scale = "min-max"
) -> float:
    """The IoU of a word's mask and its map at one threshold; its mean over words is the mIoU.

    Args:
        word: with its map and mask.
        threshold: the threshold of the map; the row's own, on this scale, for None.
        scale: on which scale; see ``Scale``. The paper of origin (Tang et al., arXiv 2210.04885)
            writes its thresholds as shares of a map's greatest value, and its release takes them
            between its least and greatest; absolute ones only tell maps of one method apart.
    """
    cut = word.image.thresholds.on(scale) if threshold is None else threshold
    values = word.shown.on(scale)
    check(values, word.mask)
    # A Python number, so that it is compared in the precision of the map.
    return iou(values >= float(cut), word.mask)
