"""Deletion and insertion of words: does a map's order of the words, for a region, matter there?

Samek et al. 2015 (arXiv 1509.06321), Petsiuk et al. 2018 (arXiv 1806.07421), with words for pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy.integrate import trapezoid

from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.metrics.word_game import Maps, Sets, WordGame


def word_order(maps: Maps, region: Maps, seed: int = 0) -> npt.NDArray[np.intp]:
    """The words by their scores for a region, highest first; equal ones in a random order.

    Args:
        maps: ``(words, y, x)``.
        region: weights of the pixels, ``(y, x)``; a word's score is its map's weighted sum.
        seed: of the order of equals, which the prompt's own order must not decide.
    """
    scores = np.einsum("wyx,yx->w", maps, region)
    drawn = np.random.default_rng(seed).permutation(len(scores))
    return drawn[np.argsort(-scores[drawn], kind="stable")]


def area_under(curve: npt.NDArray[np.float64]) -> float:
    """The area under a curve over 0 to 1 whose values are evenly spaced, by trapezoids."""
    return float(trapezoid(curve, dx=1 / (len(curve) - 1)))


def deletion_sets(order: npt.NDArray[np.intp]) -> Sets:
    """Which words are out, as they go one by one: ``(words + 1, words)``, none at first."""
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return np.arange(len(order) + 1)[:, None] > rank


class _OrderMetric(Metric):
    def curve(
        self, game: WordGame, maps: Maps, region: Maps, seed: int = 0
    ) -> npt.NDArray[np.float64] | None:
        """The target in the region, as a share of what it is with all words, ``(words + 1,)``;
        None where it isn't above zero with all of them."""
        whole = float((game.full * region).sum())
        if not whole > 0:
            return None
        removed = self._removed(word_order(maps, region, seed))
        shares: npt.NDArray[np.float64] = (game.without(removed) * region).sum((1, 2)) / whole
        return shares

    def _removed(self, order: npt.NDArray[np.intp]) -> Sets:
        raise NotImplementedError

    def update(
        self, sample: str, game: WordGame, maps: Maps, regions: Sequence[Maps], seed: int = 0
    ) -> list[float | None]:
        """The area under each region's curve, taken in where it is defined.

        Args:
            sample: the image.
            game: of the image.
            maps: of the game's words, ``(words, y, x)``.
            regions: weights of the pixels, ``(y, x)`` each.
            seed: of the order of words with equal scores.
        """
        areas: list[float | None] = []
        for region in regions:
            curve = self.curve(game, maps, region, seed)
            areas.append(None if curve is None else area_under(curve))
            if areas[-1] is not None:
                self.add(sample, areas[-1])
        return areas


class Deletion(_OrderMetric):
    """The words are taken out, the highest first: what is left of the target, on average."""

    higher_is_better: ClassVar[bool] = False

    def _removed(self, order: npt.NDArray[np.intp]) -> Sets:
        return deletion_sets(order)


class Insertion(_OrderMetric):
    """The words are put in, the highest first: what there is of the target, on average."""

    def _removed(self, order: npt.NDArray[np.intp]) -> Sets:
        # Before the highest is in, all are out; so the lowest goes first, backwards.
        return deletion_sets(order[::-1])[::-1]
