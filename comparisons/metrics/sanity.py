"""Sanity: what is left of maps when the model's weights are randomised.

Adebayo et al. 2018 (arXiv 1810.03292).
"""

from __future__ import annotations

from wordlight.backends.trajectory import FloatArray
from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.metrics.rank_correlation import rank_correlation


class RandomisedSimilarity(Metric):
    """Spearman's rank correlation of a word's map with the trained model's, over the latent grid,
    -1 to 1; equal maps have 1, and one that became constant 0."""

    def update(self, sample: str, trained: FloatArray, randomised: FloatArray) -> float:
        """One word's value, taken in.

        Args:
            sample: the image.
            trained: the map by the trained model, ``(y, x)``.
            randomised: the same of the model with random weights.
        """
        value = rank_correlation(trained, randomised)
        self.add(sample, value)
        return value
