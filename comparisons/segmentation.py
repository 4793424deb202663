"""How well one map finds one mask: the segmentation metrics, each on its own.

A map has the image's size and any scale; a mask is boolean, of the same size, and not empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score

from wordlight.attribution.maps import WordMap

Mask = npt.NDArray[np.bool_]
Map = npt.NDArray[np.floating[Any]]

#: The thresholds at which the paper of origin reports (Tang et al., arXiv 2210.04885).
PAPER_THRESHOLDS = (0.3, 0.4, 0.5)
#: Among these the calibration split chooses.
THRESHOLD_GRID = tuple(round(0.05 * k, 2) for k in range(1, 20))

BEST = "miou@best"
POINTING_GAME = "pointing-game"
AVERAGE_PRECISION = "ap"
#: Every metric of a word, by the names of results and tables.
METRICS = (*(f"miou@{t:g}" for t in PAPER_THRESHOLDS), BEST, POINTING_GAME, AVERAGE_PRECISION)


def iou(first: Mask, second: Mask) -> float:
    """Intersection over union, 0 to 1; symmetric.

    Raises ValueError for masks of different sizes, and where both are empty.
    """
    _check_sizes(first, second)
    union = int(np.logical_or(first, second).sum())
    if not union:
        raise ValueError("both masks are empty: their overlap isn't defined")
    return int(np.logical_and(first, second).sum()) / union


def iou_at(normalised: Map, mask: Mask, thresholds: Sequence[float]) -> tuple[float, ...]:
    """The IoU of a min-max normalised map, cut at each threshold, with the mask.

    A pixel counts from the threshold on (``>=``), so a constant map, which normalises to all
    ones, is the whole image at every threshold.
    """
    return tuple(iou(normalised >= threshold, mask) for threshold in thresholds)


def pointing_game(values: Map, mask: Mask) -> float:
    """The share of the map's maximal pixels that lie inside the mask, 0 to 1.

    So ties are scored in expectation: a constant map gets the mask's share of the image.
    Zhang et al., Top-down Neural Attention by Excitation Backprop, arXiv 1608.00507.
    """
    _check(values, mask)
    return float(mask[values == values.max()].mean())


def average_precision(values: Map, mask: Mask) -> float:
    """Area under the precision-recall curve of the raw map's pixels, 0 to 1; no threshold.

    A constant map gets the mask's share of the image.
    """
    _check(values, mask)
    # A sum of rounded shares: a perfect map would score 1.0000000000000002 now and then.
    return min(1.0, float(average_precision_score(mask.ravel(), values.ravel())))


def score(word_map: WordMap, mask: Mask, best_threshold: float) -> dict[str, float]:
    """Every metric of one word's map, by name.

    Args:
        word_map: the map; it is brought to the image's size.
        mask: ``(height, width)`` of the image.
        best_threshold: the method's, as the calibration split chose it.
    """
    raw = word_map.resized()
    _check(raw, mask)
    cuts = iou_at(word_map.normalised(), mask, (*PAPER_THRESHOLDS, best_threshold))
    return dict(
        zip(METRICS, (*cuts, pointing_game(raw, mask), average_precision(raw, mask)), strict=True)
    )


def threshold_curve(word_map: WordMap, mask: Mask) -> dict[str, float]:
    """The IoU at every threshold of the grid, by name: the calibration split chooses one."""
    cuts = iou_at(word_map.normalised(), mask, THRESHOLD_GRID)
    return {f"miou@{t:g}": value for t, value in zip(THRESHOLD_GRID, cuts, strict=True)}


def _check(values: Map, mask: Mask) -> None:
    _check_sizes(values, mask)
    if not mask.any():
        raise ValueError("the mask is empty: there is nothing to find")


def _check_sizes(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> None:
    if first.shape != second.shape:
        raise ValueError(f"sizes differ: {first.shape} and {second.shape}")
