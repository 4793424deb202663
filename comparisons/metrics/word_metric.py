"""Metrics that look at one word's map and its mask at a time."""

from __future__ import annotations

from abc import abstractmethod

from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.metrics.shown_map import Mask, ShownMap


class WordMetric(Metric):
    """A score of one map against one mask; a subclass writes ``score``."""

    @abstractmethod
    def score(self, shown: ShownMap, mask: Mask) -> float | None:
        """The score, or None where this mask leaves it undefined.

        Raises ValueError for sizes that differ and for an empty mask.
        """

    def update(self, sample: str, shown: ShownMap, mask: Mask) -> float | None:
        """Score one word's map and take the score in; gives it too.

        Args:
            sample: the image.
            shown: the word's map.
            mask: ``(height, width)``, what the map should find; not empty.
        """
        value = self.score(shown, mask)
        if value is not None:
            self.add(sample, value)
        return value
