"""Dice: twice the overlap of two masks over the sum of their sizes."""

from __future__ import annotations

from wordlight.comparisons.metrics.judged import JudgedWord
from wordlight.comparisons.metrics.metric import Metric, share
from wordlight.comparisons.metrics.shown_map import Mask, check_masks


def dice(first: Mask, second: Mask) -> float:
    """Dice's coefficient, 0 to 1; symmetric: the F-score of one mask's pixels against the other's
    (Dice 1945, doi 10.2307/1932409).

    Raises ValueError for masks of different sizes, and where both are empty.
    """
    check_masks(first, second)
    total = int(first.sum()) + int(second.sum())
    if not total:
        raise ValueError("both masks are empty: their overlap isn't defined")
    return 2 * int((first & second).sum()) / total


def dice_of_word(word: JudgedWord) -> float:
    """Dice of a word's mask and its map, normalised and cut at the row's threshold."""
    return dice(word.cut, word.mask)


METRIC = Metric(
    name="dice",
    score=dice_of_word,
    over="word",
    label="Dice",
    needs=frozenset({"masks", "thresholds"}),
    constant=lambda mask: 2 * share(mask) / (1 + share(mask)),
    notes=("Dice: of the mask and the map, cut at the row's threshold",),
)
