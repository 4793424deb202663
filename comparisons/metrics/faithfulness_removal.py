"""Word-removal agreement: does a map lie where the image changes when it is drawn without the word?

What changes, at the same noise, is what the method ``regeneration`` shows: it is this metric's own
truth, and no method to be ranked by it.
"""

from __future__ import annotations

from wordlight.attribution.maps import WordMap
from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.metrics.overlap import iou
from wordlight.comparisons.metrics.rank_correlation import rank_correlation
from wordlight.comparisons.metrics.shown_map import ShownMap


class RemovalCorrelation(Metric):
    """Spearman's rank correlation of a map with the change, over the latent grid, -1 to 1; a
    constant map has 0."""

    def update(self, sample: str, word_map: WordMap, change: WordMap) -> float | None:
        """One word's value, taken in; None where nothing changes."""
        if change.values.min() == change.values.max():
            return None
        value = rank_correlation(word_map.values, change.values)
        self.add(sample, value)
        return value


class RemovalIoU(Metric):
    """The IoU of a map's mask and the change's, both cut at the same threshold between their least
    and greatest values, at the image's size."""

    def __init__(self, name: str, threshold: float = 0.4) -> None:
        super().__init__(name)
        self.threshold = threshold

    def update(self, sample: str, word_map: WordMap, change: WordMap) -> float | None:
        """One word's value, taken in; None where nothing changes."""
        if change.values.min() == change.values.max():
            return None
        value = iou(ShownMap(word_map).mask(self.threshold), ShownMap(change).mask(self.threshold))
        self.add(sample, value)
        return value
