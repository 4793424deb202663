"""Means and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wordlight.comparisons.stats.intervals import mean_over_words


def test_the_mean_is_over_words_and_not_over_images():
    found = mean_over_words(["a", "a", "a", "b"], [1.0, 1.0, 1.0, 0.0])
    assert (found.mean, found.n) == (0.75, 4)


def test_the_same_input_gives_the_same_interval():
    rng = np.random.default_rng(0)
    samples = [f"image-{k // 3}" for k in range(60)]
    values = rng.random(60).tolist()
    first = mean_over_words(samples, values, seed=1)
    assert first == mean_over_words(samples, values, seed=1)
    assert first != mean_over_words(samples, values, seed=2)
    assert first.low < first.mean < first.high


def test_images_are_resampled_and_not_words():
    # Ten images of twenty equal words each hold ten values, not two hundred.
    rng = np.random.default_rng(0)
    per_image = rng.random(10)
    few = mean_over_words([str(k) for k in range(10)], per_image.tolist())
    many = mean_over_words(
        [str(k) for k in range(10) for _ in range(20)], np.repeat(per_image, 20).tolist()
    )
    assert (many.low, many.high) == pytest.approx((few.low, few.high))


def test_the_interval_agrees_with_a_plain_bootstrap():
    rng = np.random.default_rng(3)
    images = [rng.random(rng.integers(1, 4)) for _ in range(24)]
    samples = [str(k) for k, words in enumerate(images) for _ in words]
    found = mean_over_words(samples, np.concatenate(images).tolist())
    means = [
        np.concatenate([images[k] for k in rng.integers(0, 24, 24)]).mean() for _ in range(4000)
    ]
    assert (found.low, found.high) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.015)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    samples = [str(k) for k in range(40)]
    hits = 0
    for trial in range(100):
        found = mean_over_words(samples, rng.normal(0.4, 0.2, 40).tolist(), seed=trial)
        hits += found.low <= 0.4 <= found.high
    assert 86 <= hits <= 100


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
