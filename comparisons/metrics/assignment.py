"""Metrics that look at several words of an image together: which word a pixel goes to."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.metrics.overlap import iou
from wordlight.comparisons.metrics.shown_map import Map, Mask, ShownMap, check


def argmax_masks(maps: Sequence[Map], threshold: float) -> list[Mask]:
    """Each word's pixels: where no other word's map is higher, from the threshold on.

    Where several are highest the pixel is all of theirs, so constant maps keep the whole image.

    Args:
        maps: one a word, ``(height, width)``, on one scale.
        threshold: below it a pixel is no word's.
    """
    stack = np.stack(maps)
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


class ImageMetric(Metric):
    """A score of each of an image's words that needs them all; a subclass writes ``_scores``."""

    def scores(self, shown: Sequence[ShownMap], masks: Sequence[Mask]) -> list[float]:
        """One score a word, in their order; see ``update``."""
        if len(shown) != len(masks):
            raise ValueError(f"{len(shown)} maps for {len(masks)} masks")
        for one, mask in zip(shown, masks, strict=True):
            check(one.raw, mask)
        return self._scores(shown, masks) if masks else []

    @abstractmethod
    def _scores(self, shown: Sequence[ShownMap], masks: Sequence[Mask]) -> list[float]: ...

    def update(self, sample: str, shown: Sequence[ShownMap], masks: Sequence[Mask]) -> list[float]:
        """Score an image's words and take the scores in; gives them too.

        Args:
            sample: the image.
            shown: the words' maps.
            masks: what each should find, ``(height, width)``, not empty.

        Raises:
            ValueError: not one mask a map, sizes that differ, an empty mask.
        """
        values = self.scores(shown, masks)
        for value in values:
            self.add(sample, value)
        return values


class ArgmaxIoU(ImageMetric):
    """The IoU of each word's share of the image, where every pixel goes to the word whose
    normalised map is highest there, from a threshold on."""

    def __init__(self, name: str, threshold: float) -> None:
        super().__init__(name)
        self.threshold = threshold

    def _scores(self, shown: Sequence[ShownMap], masks: Sequence[Mask]) -> list[float]:
        found = argmax_masks([one.normalised for one in shown], self.threshold)
        return [iou(one, mask) for one, mask in zip(found, masks, strict=True)]


class MatchedIoU(ImageMetric):
    """See ``matched_ious``: of the normalised maps, each cut at a threshold."""

    def __init__(self, name: str, threshold: float) -> None:
        super().__init__(name)
        self.threshold = threshold

    def _scores(self, shown: Sequence[ShownMap], masks: Sequence[Mask]) -> list[float]:
        return matched_ious([one.normalised >= self.threshold for one in shown], masks)
