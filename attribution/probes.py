"""Norms that are estimated from random probes: their bias, and how several are merged."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln


def root_mean_square_bias(probes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The expectation of the root mean square of K standard normal draws, below 1.

    √(2/K)·Γ((K+1)/2)/Γ(K/2), for K = ``probes``, which needn't be whole.
    """
    count = np.asarray(probes, np.float64)
    ratio = np.exp(gammaln((count + 1) / 2) - gammaln(count / 2))
    bias: npt.NDArray[np.float64] = np.sqrt(2.0 / count) * ratio
    return bias


def root_sum_square(norms: npt.NDArray[Any], probes: int = 0) -> npt.NDArray[np.float64]:
    """The root of the sum of squares along the first axis.

    Norms that are estimated from K probes each, and are right on average, have squares that are too
    large on average, and so has a root of their sum: by 11 % of two equal norms at K = 1. It is put
    right as the norm of all probes together would be, which are as many as Satterthwaite's degrees
    of freedom of a sum of squares.

    Args:
        norms: ``(norm, ...)``, at least 0.
        probes: K; 0 for norms that are exact.
    """
    squares = np.square(norms.astype(np.float64))
    total = squares.sum(axis=0)
    root: npt.NDArray[np.float64] = np.sqrt(total)
    if not probes:
        return root
    # What Σ s⁴ is on average of Σ m⁴, s the true norms: a χ² of K has E[χ⁴] = K (K + 2).
    fourth = np.square(squares).sum(axis=0) / (1 + 2 / probes)
    every = total**2 - np.square(squares).sum(axis=0) + fourth
    freedom = probes * np.divide(every, fourth, out=np.ones_like(total), where=fourth > 0)
    return root * root_mean_square_bias(probes) / root_mean_square_bias(freedom)
