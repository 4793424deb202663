"""Means over words with intervals over images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

CONFIDENCE = 0.95
#: How often a choice is made again, on resampled images.
RESAMPLES = 2000
#: The least and the greatest value of a share.
SHARE = (0.0, 1.0)

FloatArray = npt.NDArray[np.float64]


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

    def within(self, bounds: tuple[float, float]) -> Self:
        """Return the estimate with an interval that doesn't leave the range of the values."""
        least, most = bounds
        # In this order nan, of an interval that there isn't, stays nan.
        return replace(self, low=max(self.low, least), high=min(self.high, most))


@dataclass(frozen=True)
class ChoiceShares:
    """The share of other calibration splits that would have chosen each option.

    Attributes:
        shares: one an option; they add up to 1.
        images: the number of calibration images of the choice.
    """

    shares: tuple[float, ...]
    images: int

    @classmethod
    def resampled(
        cls, samples: Sequence[str], curves: FloatArray, *, seed: int = 0
    ) -> ChoiceShares:
        """Choose the best option again and again, each time on images drawn with replacement.

        Args:
            samples: the image of each word.
            curves: ``(words, options)``: each word's score with each option.
            seed: of the draws.
        """
        _, image = np.unique(np.asarray(samples), return_inverse=True)
        images = int(image.max()) + 1
        sums = np.zeros((images, curves.shape[1]))
        np.add.at(sums, image, curves)
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(images, np.full(images, 1 / images), size=RESAMPLES)
        # All options are averaged over the same words, so sums order them as means do. Of options
        # that only rounding tells apart the first is taken, as the choice itself does of equals.
        chosen = np.argmax(np.round(drawn @ sums, 9), axis=1)
        shares = np.bincount(chosen, minlength=curves.shape[1]) / RESAMPLES
        return cls(tuple(shares.tolist()), images)

    def variance(self, means: Sequence[float]) -> float:
        """Return the variance that the choice adds to a mean that is ``means`` by option."""
        scores, shares = np.asarray(means), np.asarray(self.shares)
        return float(shares @ (scores - shares @ scores) ** 2)


def mean_over_words(
    samples: Sequence[str],
    values: Sequence[float],
    *,
    choice: ChoiceShares | None = None,
    curve: Sequence[float] = (),
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """Return the mean of all values, with a t interval over images.

    The words of one image aren't independent, so images are what varies. The mean is the ratio of
    the images' sums to their numbers of words, and its variance the linearised one of a ratio
    (Cochran, Sampling Techniques, 1977, section 6.4), with one degree of freedom less than there
    are images. At few images it covers the truth more often than percentiles of a bootstrap:
    92 to 93 times in 100 of skewed values of 18 images (``test_statistics.py`` counts them).

    Where values were taken at an option that other images chose, such as a threshold, the interval
    is of the whole procedure: the variance of the mean over options that might have been chosen is
    added, with Satterthwaite's degrees of freedom of a sum of two variances (Biometrics Bulletin
    2, 1946).

    Values that are all the least or all the greatest that there can be have no variance, and say
    little of how many others there are. Then the interval has every mean at which as many images
    would all be so in more than 2.5 % of cases (of shares that are 0 or 1 it is Clopper and
    Pearson's of the images, Biometrika 26, 1934). Of values that may be infinitely far off nothing
    of the kind is known, and the interval is the mean alone.

    Args:
        samples: the image that each value belongs to.
        values: one a word.
        choice: the share of draws in which each option is chosen.
        curve: then the mean of the values with each option.
        bounds: the least and the greatest value that there can be; the interval stays within.

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
    variance = images / (images - 1) * float(off @ off) / len(scores) ** 2
    freedom = float(images - 1)
    if choice is not None and (chosen := choice.variance(curve)):
        # A variance that a single image gave has no degrees of freedom; it has one at least here.
        parts = ((variance, images - 1), (chosen, max(choice.images - 1, 1)))
        variance = sum(part for part, _ in parts)
        freedom = variance**2 / sum(part**2 / own for part, own in parts)
    reach = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(variance)
    if mean in bounds and math.isfinite(bounds[1] - bounds[0]):
        unseen = 1 - ((1 - CONFIDENCE) / 2) ** (1 / images)
        reach = max(reach, unseen * (bounds[1] - bounds[0]))
    return Estimate(mean, mean - reach, mean + reach, len(scores)).within(bounds)
