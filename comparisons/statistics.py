"""Means over words with bootstrap intervals over images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, and over how many values.

    ``mean`` is nan where there was no value, ``low`` and ``high`` are nan where fewer than two
    images had one: an interval over images can't be had from one image.
    """

    mean: float
    low: float
    high: float
    n: int


def mean_over_words(samples: Sequence[str], values: Sequence[float], *, seed: int = 0) -> Estimate:
    """The mean of all values, with the percentile bootstrap interval over images.

    Images are resampled, each with all of its words, since the words of one image aren't
    independent; every resample's mean is again over words. The same input and seed give the same
    interval.

    Args:
        samples: the image that each value belongs to.
        values: one a word.
        seed: of the resampling.

    Raises:
        ValueError: values that are nan or infinite: a word is scored or left out, never scored
            as nan.
    """
    scores = np.asarray(values, dtype=np.float64)
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite: leave out what can't be scored")
    if not len(scores):
        return Estimate(math.nan, math.nan, math.nan, 0)
    _, image = np.unique(np.asarray(samples), return_inverse=True)
    sums = np.bincount(image, weights=scores)
    counts = np.bincount(image).astype(np.float64)
    mean = float(scores.mean())
    if len(sums) < 2:
        return Estimate(mean, math.nan, math.nan, len(scores))
    interval = bootstrap(
        (sums, counts),
        _ratio,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(mean, float(interval.low), float(interval.high), len(scores))


def _ratio(
    sums: npt.NDArray[Any], counts: npt.NDArray[Any], axis: int = -1
) -> npt.NDArray[np.float64]:
    ratio: npt.NDArray[np.float64] = sums.sum(axis=axis) / counts.sum(axis=axis)
    return ratio
