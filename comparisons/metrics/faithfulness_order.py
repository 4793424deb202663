"""Deletion and insertion of words: does a map's order of the words, for a region, matter there?

Samek et al. 2015 (arXiv 1509.06321), Petsiuk et al. 2018 (arXiv 1806.07421), with words for pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.integrate import trapezoid

from wordlight.comparisons.metrics.judged import JudgedWord
from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.metrics.word_game import TARGET_NOTE, Maps, Sets, WordGame


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
    """Return the words that are out, as they go one by one: ``(words + 1, words)``, none at
    first."""
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return np.arange(len(order) + 1)[:, None] > rank


def insertion_sets(order: npt.NDArray[np.intp]) -> Sets:
    """Return the words that are out, as they come in one by one: ``(words + 1, words)``, all at
    first."""
    # Before the highest is in, all are out; so the lowest goes first, backwards.
    return deletion_sets(order[::-1])[::-1]


def curve(
    game: WordGame, maps: Maps, region: Maps, sets: Callable[..., Sets], seed: int = 0
) -> npt.NDArray[np.float64] | None:
    """The target in a region, as a share of what it is with all words, ``(words + 1,)``; None
    where it isn't above zero with all of them.

    Args:
        game: of the image.
        maps: of the game's words, ``(words, y, x)``.
        region: weights of the pixels, ``(y, x)``.
        sets: ``deletion_sets`` or ``insertion_sets``.
        seed: of the order of words with equal scores.
    """
    whole = float((game.full * region).sum())
    if not whole > 0:
        return None
    removed = sets(word_order(maps, region, seed))
    shares: npt.NDArray[np.float64] = (game.without(removed) * region).sum((1, 2)) / whole
    return shares


def _area(word: JudgedWord, sets: Callable[..., Sets]) -> float | None:
    image = word.image
    if image.values is None:
        return None
    found = curve(image.model.game, image.values, word.region, sets, image.seed)
    return None if found is None else area_under(found)


def deletion(word: JudgedWord) -> float | None:
    """The words are taken out, the highest first: what is left of the target in the word's region,
    on average."""
    return _area(word, deletion_sets)


def insertion(word: JudgedWord) -> float | None:
    """The words are put in, the highest first: what there is of the target in the word's region,
    on average."""
    return _area(word, insertion_sets)


METRICS = tuple(
    Metric(
        name=name,
        score=score,
        over="headline",
        higher_is_better=higher_is_better,
        needs=frozenset({"masks", "word-game"}),
        # Without some word the push may be larger, or point the other way.
        least=-math.inf,
        most=math.inf,
        groups=("faithfulness", "order"),
        table="order",
        ranked=True,
        notes=(TARGET_NOTE, "order is over the shape nouns' regions"),
    )
    for name, score, higher_is_better in (
        ("deletion", deletion, False),
        ("insertion", insertion, True),
    )
)
