"""Boundary F-score: does the outline of what a map marks follow the outline of the mask?"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from wordlight.comparisons.metrics.judged import JudgedWord
from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.metrics.shown_map import Mask, check_masks


def boundary(mask: Mask) -> Mask:
    """The mask's pixels that have a neighbour above, below, left or right outside of it; the edge
    of the image counts as outside."""
    outline: Mask = mask & ~ndimage.binary_erosion(mask)
    return outline


def boundary_f(found: Mask, mask: Mask, *, tolerance: float = 0.0075) -> float:
    """The F-score of two boundaries: the harmonic mean of the share of the found boundary that lies
    near the true one, and of the true one that lies near the found one, 0 to 1 (Martin et al. 2004,
    doi 10.1109/TPAMI.2004.1273918; Csurka et al. 2013, doi 10.5244/C.27.32).

    Args:
        found: the mask that is judged; an empty one has 0.
        mask: the true one, not empty.
        tolerance: the largest distance, as a share of the image's diagonal, rounded up to whole
            pixels.

    Raises:
        ValueError: masks of different sizes, a true mask that is empty.
    """
    check_masks(found, mask)
    if not mask.any():
        raise ValueError("the mask is empty: there is nothing to find")
    if not found.any():
        return 0.0
    near = math.ceil(tolerance * math.hypot(*mask.shape))
    one, other = boundary(found), boundary(mask)
    precision = float((_distance_to(other)[one] <= near).mean())
    recall = float((_distance_to(one)[other] <= near).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _distance_to(outline: Mask) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    distances: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    distances = ndimage.distance_transform_edt(~outline)
    return distances


def boundary_f_of_word(word: JudgedWord, *, tolerance: float = 0.0075) -> float:
    """``boundary_f`` of a word's map, normalised and cut at the row's threshold."""
    return boundary_f(word.cut, word.mask, tolerance=tolerance)


METRIC = Metric(
    name="boundary-f",
    score=boundary_f_of_word,
    over="word",
    label="boundary F",
    needs=frozenset({"masks", "thresholds"}),
    constant=lambda mask: boundary_f(np.ones_like(mask), mask),
    options={"tolerance": 0.0075},
    notes=(
        "boundary F: outlines within 0.75 % of the image's diagonal of each other (rounded up to "
        "whole pixels)",
    ),
)
