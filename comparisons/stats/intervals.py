"""Means over words with bootstrap intervals over images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
CONFIDENCE = 0.95
#: How many draws are held at a time, 2 bytes each, and how many are looked at, 8 bytes each: few,
#: so that memory doesn't grow with the number of images.
_HELD, _SEEN = 2**21, 2**17


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
    rows = min(RESAMPLES, max(1, _HELD // len(sums)))
    block = max(1, _SEEN // len(sums))
    means: list[npt.NDArray[np.float64]] = []
    for chunk in range(-(-RESAMPLES // rows)):
        times = _draws(len(sums), rows, seed, chunk)
        for start in range(0, rows, block):
            part = times[start : start + block].astype(np.float64)
            means.append((part @ sums) / (part @ counts))
    outside = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(np.concatenate(means)[:RESAMPLES], [outside, 100 - outside])
    return Estimate(mean, float(low), float(high), len(scores))


@lru_cache(maxsize=1)
def _draws(images: int, rows: int, seed: int, chunk: int) -> npt.NDArray[np.uint16]:
    """Return the number of times that each image is drawn, ``(rows, images)``; every metric of a
    table asks for the same.

    SciPy's bootstrap would draw anew for each, and hold all draws of many images at once.
    """
    rng = np.random.default_rng([seed, chunk])
    times = np.empty((rows, images), np.uint16)
    for row in times:
        row[:] = np.bincount(rng.integers(images, size=images), minlength=images)
    return times
