"""The best that a map on the latent grid can do: the true mask, reduced to it and back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wordlight.attribution.maps import WordMap
from wordlight.attribution.resize import average_down
from wordlight.comparisons.datasets import DatasetItem, ScoredWord


def ceiling_map(item: DatasetItem, scored: ScoredWord) -> WordMap:
    """A word's true mask as a map on the latent grid: each value the mask's share of its pixels.

    Scored as any method's map is, it says what the grid's coarseness alone costs.
    """
    values = mask_on_grid(scored.mask, item.trajectory.grid)
    return WordMap(scored.word, values, signed=False, image=item.trajectory.image)


def mask_on_grid(mask: npt.NDArray[np.bool_], grid: tuple[int, int]) -> npt.NDArray[np.float32]:
    """The share of each grid cell that a mask covers, ``(y, x)`` float32, 0 to 1.

    Raises ValueError where the grid does not divide the mask's size.
    """
    return average_down(mask.astype(np.float64), grid).astype(np.float32)
