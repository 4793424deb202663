"""Metrics of where a map's peak lies, and where its mass does."""

from __future__ import annotations

import numpy as np

from wordlight.comparisons.metrics.shown_map import Map, Mask, check


def pointing_game(values: Map, mask: Mask) -> float:
    """The share of the map's maximal pixels that lie inside the mask, 0 to 1.

    So ties are scored in expectation: a constant map gets the mask's share of the image.
    Zhang et al., Top-down Neural Attention by Excitation Backprop, arXiv 1608.00507.
    """
    check(values, mask)
    return float(mask[values == values.max()].mean())


def energy_inside(energy: Map, mask: Mask) -> float:
    """The share of a map's mass that lies inside the mask, 0 to 1; the energy-based pointing game
    (Wang et al., Score-CAM, arXiv 1910.01279).

    Without any mass it is the mask's share of the image, as of a constant map.

    Raises ValueError for negative and for infinite values too.
    """
    check(energy, mask)
    if np.isinf(energy).any():
        raise ValueError("the map has infinite values: there is no share of its mass")
    if energy.min() < 0:
        raise ValueError("energy isn't negative: take a map's positive part")
    total = float(energy.sum(dtype=np.float64))
    if not total:
        return float(mask.mean())
    return min(1.0, float(energy[mask].sum(dtype=np.float64)) / total)
