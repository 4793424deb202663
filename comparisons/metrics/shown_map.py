"""A word's map as metrics look at it: at the image's size, on the scales that they cut it on."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from wordlight.attribution.maps import WordMap, normalise

Mask = npt.NDArray[np.bool_]
Map = npt.NDArray[np.floating[Any]]

#: ``"min-max"``: from a map's least to its greatest value. ``"max"``: as a share of its greatest
#: value, as the paper of origin writes it. ``"absolute"``: as it is.
Scale = Literal["min-max", "max", "absolute"]


class MaskMap(WordMap):
    """A mask where others have a map, 0 and 1 at the image's size.

    An empty one finds nothing, where a constant map would be the whole image.
    """

    @property
    def blank(self) -> bool:
        """True if the mask is empty; a full one is the whole image to users too."""
        return not self.values.any()

    def normalised(self) -> npt.NDArray[np.float32]:
        """The mask as it is."""
        return self.values


class ShownMap:
    """One word's map at the image's size, resized and scaled once for all metrics.

    On every scale a constant map is the whole image, whatever the threshold: one everywhere where
    scales end at 1, infinite on the absolute one. A mask is what it is on all of them.
    """

    def __init__(self, word_map: WordMap) -> None:
        self._map = word_map

    @cached_property
    def raw(self) -> Map:
        """The map as it is, ``(height, width)``."""
        return self._map.resized()

    @cached_property
    def normalised(self) -> Map:
        """From 0 to 1; of a signed map the positive part."""
        if isinstance(self._map, MaskMap):
            return self.raw
        return normalise(self.raw, signed=self._map.signed)

    def mask(self, threshold: float) -> Mask:
        """Return a mask, true where the normalised map is at least ``threshold``; a constant map is
        the whole image."""
        return self.normalised >= threshold

    @cached_property
    def energy(self) -> Map:
        """The positive part."""
        return np.maximum(self.raw, 0)

    def on(self, scale: Scale) -> Map:
        """The map on one of the scales."""
        if scale == "min-max":
            return self.normalised
        if isinstance(self._map, MaskMap):
            return self.raw
        if self.energy.min() == self.energy.max():
            return np.full_like(self.energy, np.inf if scale == "absolute" else 1.0)
        return self.energy / self.energy.max() if scale == "max" else self.raw


def check(values: Map, mask: Mask) -> None:
    """Raises ValueError for different sizes, for a map with NaN, and for a mask that is empty;
    TypeError for a mask that isn't boolean.

    NaN is above and below nothing, so every metric would score it as something.
    """
    _check_sizes(values, mask)
    _check_boolean(mask)
    if np.isnan(values).any():
        raise ValueError("the map has NaN")
    if not mask.any():
        raise ValueError("the mask is empty: there is nothing to find")


def check_masks(first: Mask, second: Mask) -> None:
    """Raises ValueError for masks of different sizes, TypeError for what isn't boolean."""
    _check_sizes(first, second)
    _check_boolean(first)
    _check_boolean(second)


def _check_sizes(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> None:
    if first.shape != second.shape:
        raise ValueError(f"sizes differ: {first.shape} and {second.shape}")


def _check_boolean(mask: npt.NDArray[Any]) -> None:
    # Whole numbers would be taken for the numbers of rows.
    if mask.dtype != np.bool_:
        raise TypeError(f"a mask is boolean, not {mask.dtype}: compare, as in values > 0")
