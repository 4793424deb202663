"""Metrics that look at several words of an image together: which word a pixel goes to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from wordlight.comparisons.metrics.judged import JudgedWord
from wordlight.comparisons.metrics.overlap import iou
from wordlight.comparisons.metrics.shown_map import Map, Mask


def argmax_masks(maps: Sequence[Map], threshold: float) -> list[Mask]:
    """Each word's pixels: where no other word's map is higher, from the threshold on.

    Where several are highest the pixel is all of theirs, so constant maps keep the whole image.

    Args:
        maps: one a word, ``(height, width)``, on one scale.
        threshold: below it a pixel is no word's.

    Raises:
        ValueError: a map with NaN, which would take its pixels from all others.
    """
    stack = np.stack(maps)
    if np.isnan(stack).any():
        raise ValueError("a map has NaN")
    highest = (stack == stack.max(axis=0)) & (stack >= threshold)
    return list(highest)


def matched_ious(found: Sequence[Mask], masks: Sequence[Mask]) -> list[float]:
    """The IoU of each true mask with the found one that it is matched to, one to one, so that the
    sum is greatest (the Hungarian method); 0 for a true mask that is left over.

    So it doesn't matter which found mask is which: that is how segments without names are scored,
    and of words' maps it tells whether they find the objects, whichever word finds which.
    """
    values = [0.0] * len(masks)
    if found:
        overlap = np.array([[iou(one, mask) for mask in masks] for one in found])
        for one, mask in zip(*linear_sum_assignment(overlap, maximize=True), strict=True):
            values[mask] = float(overlap[one, mask])
    return values


def argmax_ious(words: Sequence[JudgedWord]) -> list[float]:
    """The IoU of each word's share of the image, where every pixel goes to the word whose
    normalised map is highest there, from the row's threshold on."""
    found = argmax_masks([word.shown.normalised for word in words], words[0].threshold)
    return [iou(one, word.mask) for one, word in zip(found, words, strict=True)]


def matched_ious_of(words: Sequence[JudgedWord]) -> list[float]:
    """``matched_ious`` of the normalised maps, each cut at the row's threshold."""
    return matched_ious([word.cut for word in words], [word.mask for word in words])
