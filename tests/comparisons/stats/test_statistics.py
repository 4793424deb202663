"""Means and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from wordlight.comparisons.stats.intervals import SHARE, ChoiceShares, mean_over_words


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


OPTIONS = np.linspace(0.05, 0.95, 19)


def curves_of(rng, images):
    """Scores of each option: of each image a level of its own, and an option that is best for it;
    those that are cut too high lose more than those that are cut too low."""
    level = rng.beta(2, 3, images)[:, None]
    off = OPTIONS - rng.normal(0.5, 0.2, images)[:, None]
    return level * np.exp(-np.where(off > 0, 20, 6) * off**2)


def names(count):
    return [f"{k:03d}" for k in range(count)]


def chosen_mean(rng, calibration, test):
    """One run of the procedure: the estimate, and the same with its choice taken for granted."""
    seen, judged = curves_of(rng, calibration), curves_of(rng, test)
    best = seen.mean(axis=0).argmax()
    shares = ChoiceShares.resampled(names(calibration), seen)
    values = judged[:, best].tolist()
    curve = judged.mean(axis=0).tolist()
    whole = mean_over_words(names(test), values, choice=shares, curve=curve)
    return whole, mean_over_words(names(test), values)


def test_the_interval_is_of_the_whole_procedure_the_choice_included():
    """Held against the procedure done again and again on images that nobody saw before."""
    rng = np.random.default_rng(0)
    runs = [chosen_mean(rng, 8, 60) for _ in range(300)]
    means = np.array([whole.mean for whole, _ in runs])
    truth = means.mean()
    reach = np.array([(whole.high - whole.low) / 2 for whole, _ in runs])
    plain = np.array([(taken.high - taken.low) / 2 for _, taken in runs])
    # The standard deviation of the mean over runs is what an interval's half width stands for.
    spread = 1.96 * means.std()
    assert np.median(plain) < 0.8 * spread
    # Few resampled images choose a little more wildly than as many new ones do.
    assert np.median(reach) == pytest.approx(spread, rel=0.15)
    covered = np.mean([whole.low <= truth <= whole.high for whole, _ in runs])
    taken_covered = np.mean([taken.low <= truth <= taken.high for _, taken in runs])
    # 300 trials of a chance of 0.95 have a standard error of 0.013.
    assert covered >= 0.93
    assert taken_covered < 0.9


def test_the_shares_of_a_choice_are_those_of_a_plain_bootstrap():
    rng = np.random.default_rng(1)
    images = rng.integers(1, 4, 9)
    samples = np.repeat(names(9), images)
    curves = rng.random((len(samples), 4))
    found = ChoiceShares.resampled(samples.tolist(), curves)
    counts = np.zeros(4)
    for _ in range(4000):
        drawn = rng.choice(names(9), 9)
        words = np.concatenate([curves[samples == name] for name in drawn])
        counts[words.mean(axis=0).argmax()] += 1
    # Shares of 2000 and of 4000 draws: a standard error of at most 0.014.
    assert np.abs(np.array(found.shares) - counts / 4000).max() < 0.05
    assert found.images == 9
    means = [0.1, 0.4, 0.2, 0.3]
    drawn = rng.choice(means, 20_000, p=found.shares)
    assert found.variance(means) == pytest.approx(drawn.var(), rel=0.05)


def test_a_choice_that_no_image_would_change_widens_nothing():
    sure = ChoiceShares((0.0, 1.0, 0.0), 10)
    values = np.random.default_rng(2).random(12).tolist()
    plain = mean_over_words(names(12), values)
    assert mean_over_words(names(12), values, choice=sure, curve=[0.1, 0.2, 0.9]) == plain


def test_an_interval_of_shares_is_one_of_shares():
    samples, shares = names(8), [0.0] * 7 + [1.0]
    free = mean_over_words(samples, shares)
    assert free.low < 0
    found = mean_over_words(samples, shares, bounds=SHARE)
    assert (found.mean, found.low, found.high) == (free.mean, 0.0, free.high)
    turned = mean_over_words(samples, [1 - one for one in shares], bounds=SHARE)
    assert turned.high == 1.0
    assert turned.low == pytest.approx(1 - free.high)


@pytest.mark.parametrize("n", [2, 18])
@pytest.mark.parametrize("bound", SHARE)
def test_shares_that_are_all_none_or_all_are_not_taken_for_certain(n, bound):
    found = mean_over_words(names(n), [bound] * n, bounds=SHARE)
    exact = stats.binomtest(round(bound * n), n).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_values_without_a_greatest_have_no_interval_of_unseen_ones():
    found = mean_over_words(names(4), [0.0] * 4, bounds=(0.0, math.inf))
    assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)


def test_what_can_not_be_estimated_is_nan():
    nothing = mean_over_words([], [])
    assert nothing.n == 0
    assert math.isnan(nothing.mean)
    assert math.isnan(mean_over_words(["a"], [1.0], bounds=SHARE).low)
    one = mean_over_words(["a", "a"], [0.2, 0.4])
    assert one.mean == pytest.approx(0.3)
    assert math.isnan(one.low)
    assert math.isnan(one.high)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        mean_over_words(["a", "b"], [0.5, bad])
