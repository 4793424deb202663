"""Means and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from wordlight.comparisons.stats.intervals import mean_over_words


def test_the_mean_is_over_words_and_not_over_images():
    found = mean_over_words(["a", "a", "a", "b"], [1.0, 1.0, 1.0, 0.0])
    assert (found.mean, found.n) == (0.75, 4)


def test_images_vary_and_not_words():
    # Ten images of twenty equal words each hold ten values, not two hundred.
    rng = np.random.default_rng(0)
    per_image = rng.random(10)
    few = mean_over_words([str(k) for k in range(10)], per_image.tolist())
    many = mean_over_words(
        [str(k) for k in range(10) for _ in range(20)], np.repeat(per_image, 20).tolist()
    )
    assert (many.low, many.high) == pytest.approx((few.low, few.high))


def test_of_one_word_an_image_it_is_the_t_interval():
    values = np.random.default_rng(3).random(24)
    found = mean_over_words([str(k) for k in range(24)], values.tolist())
    plain = stats.t.interval(0.95, 23, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(plain)


def test_of_images_with_several_words_it_agrees_with_a_jackknife():
    rng = np.random.default_rng(3)
    images = [rng.random(rng.integers(1, 4)) for _ in range(200)]
    samples = [str(k) for k, words in enumerate(images) for _ in words]
    found = mean_over_words(samples, np.concatenate(images).tolist())
    without = [np.concatenate(images[:k] + images[k + 1 :]).mean() for k in range(200)]
    error = np.sqrt(199 / 200 * np.square(without - np.mean(without)).sum())
    # Both are of order 1/n exact, and differ by that of a ratio's bias.
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, 199) * error, rel=0.02)


def test_the_interval_covers_the_truth_as_often_as_it_says_at_few_images():
    """IoU of words, many near nothing; two thirds of 18 images have several words."""
    rng = np.random.default_rng(5)
    hits = 0
    trials = 2000
    for _ in range(trials):
        words = rng.integers(1, 4, 18)
        level = rng.beta(0.8, 1.6, 18)
        samples = np.repeat([f"{k:02d}" for k in range(18)], words)
        values = np.repeat(level, words) * rng.uniform(0.5, 1.5, words.sum())
        found = mean_over_words(samples, values.tolist())
        hits += found.low <= 0.8 / 2.4 <= found.high
    # 92.5 times for values as skewed as these.
    assert 0.915 <= hits / trials <= 0.965


def test_what_can_not_be_estimated_is_nan():
    nothing = mean_over_words([], [])
    assert nothing.n == 0
    assert math.isnan(nothing.mean)
    one = mean_over_words(["a", "a"], [0.2, 0.4])
    assert one.mean == pytest.approx(0.3)
    assert math.isnan(one.low)
    assert math.isnan(one.high)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        mean_over_words(["a", "b"], [0.5, bad])
