"""Means over words with intervals over images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

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


def mean_over_words(samples: Sequence[str], values: Sequence[float]) -> Estimate:
    """Return the mean of all values, with a t interval over images.

    The words of one image aren't independent, so images are what varies. The mean is the ratio of
    the images' sums to their numbers of words, and its variance the linearised one of a ratio
    (Cochran, Sampling Techniques, 1977, section 6.4), with one degree of freedom less than there
    are images. At few images it covers the truth more often than percentiles of a bootstrap:
    92 to 93 times in 100 of skewed values of 18 images (``test_statistics.py`` counts them).

    Args:
        samples: the image that each value belongs to.
        values: one a word.

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
    mean, images = float(scores.mean()), len(sums)
    if images < 2:
        return Estimate(mean, math.nan, math.nan, len(scores))
    off = sums - mean * counts
    error = math.sqrt(images / (images - 1) * float(off @ off)) / len(scores)
    reach = float(stdtrit(images - 1, (1 + CONFIDENCE) / 2)) * error
    return Estimate(mean, mean - reach, mean + reach, len(scores))
