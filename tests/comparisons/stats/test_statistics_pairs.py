"""Paired tests, their correction and the groups made of them; planted differences and ties."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import permutation_test, sem, wilcoxon

from wordlight.comparisons.stats.paired_tests import (
    PairedTest,
    holm,
    paired_tests,
    pairs_with,
    rank_methods,
    sign_flip_test,
    smallest_difference,
    standings_against,
)


def values_of(array):
    """A word an image: ``(images,)`` to values by image and word."""
    return {(f"i{k:03d}", "it"): float(v) for k, v in enumerate(array)}


def test_a_sign_flip_by_hand():
    # |sum| of the eight patterns of 1, 2, 3: 6, 6, 4, 4, 2, 2, 0, 0.
    p = sign_flip_test(np.array([[1.0, 1.0], [2.0, 2.0], [3.0, -3.0]]))
    assert p.tolist() == [2 / 8, 1.0]


def test_the_sign_flip_is_scipys_exact_test():
    rng = np.random.default_rng(0)
    differences = rng.normal(0.3, 1, (10, 4))
    ours = sign_flip_test(differences)
    for column, p in zip(differences.T, ours, strict=True):
        theirs = permutation_test(
            (column,), np.sum, permutation_type="samples", n_resamples=np.inf, vectorized=False
        )
        assert p == pytest.approx(theirs.pvalue)


def test_drawn_patterns_agree_with_all_of_them():
    rng = np.random.default_rng(1)
    differences = rng.normal(0.3, 1, (14, 50))
    exact = sign_flip_test(differences, patterns=2**14)
    drawn = sign_flip_test(differences, patterns=4000)
    assert not np.array_equal(exact, drawn)
    # A share of 4000 draws has a standard error of at most 0.008.
    assert np.abs(exact - drawn).max() < 0.03
    assert (drawn >= 1 / 8001).all()
    assert np.array_equal(drawn, sign_flip_test(differences, patterns=4000))


def test_a_p_near_the_line_is_drawn_more_often_until_it_is_no_noise():
    rng = np.random.default_rng(3)
    # Of 20 images 1 048 576 patterns, more than are drawn for this line.
    differences = rng.normal(0.4, 1, (24, 400))
    exact_p = sign_flip_test(differences[:, :1], patterns=2**20)
    assert exact_p == pytest.approx(
        permutation_test(
            (differences[:, 0],), np.sum, permutation_type="samples", n_resamples=20_000, rng=0
        ).pvalue,
        abs=0.02,
    )
    line = 0.001
    once = np.stack(
        [sign_flip_test(differences[:, :400], line=line, seed=seed) for seed in range(2)]
    )
    near = (once > line / 3).all(axis=0) & (once < 3 * line).all(axis=0)
    assert near.any()
    # Two draws of 400 hits each: a relative standard error of 0.07 of their ratio.
    assert np.abs(np.log(once[0] / once[1]))[near].max() < 0.3


def test_no_difference_at_all_has_p_one():
    assert sign_flip_test(np.zeros((5, 1))).tolist() == [1.0]
    assert sign_flip_test(np.zeros((40, 1))).tolist() == [1.0]


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx(
        [0.03, 0.06, 0.06, 0.02]
    )
    assert holm(np.array([0.5, 0.6])).tolist() == [1.0, 1.0]
    assert holm(np.array([])).tolist() == []


@given(hnp.arrays(float, st.integers(1, 8), elements=st.floats(0, 1)))
def test_holm_lies_between_the_plain_and_bonferronis_and_keeps_the_order(p):
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, len(p) * p) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


def test_a_pair_by_hand():
    first = {("a", "x"): 0.9, ("a", "y"): 0.5, ("b", "x"): 0.7, ("c", "x"): 0.1}
    second = {("a", "x"): 0.4, ("a", "y"): 0.4, ("b", "x"): 0.5, ("c", "z"): 0.9}
    (test,) = paired_tests({"one": first, "two": second})
    # Image c has no word that both have; image a's difference is 0.6, image b's 0.2.
    assert (test.images, test.p) == (2, 0.5)
    assert test.difference == pytest.approx(0.8 / 3)
    assert test.adjusted == test.p


def test_the_wilcoxon_of_a_pair_is_scipys_over_images():
    rng = np.random.default_rng(2)
    one, two = rng.random(15), rng.random(15)
    (test,) = paired_tests({"one": values_of(one), "two": values_of(two)})
    assert test.wilcoxon == pytest.approx(wilcoxon(one, two).pvalue)
    (same,) = paired_tests({"one": values_of(one), "two": values_of(one)})
    assert (same.p, same.wilcoxon, same.difference) == (1, 1, 0)


def test_the_order_of_words_and_methods_changes_nothing():
    rng = np.random.default_rng(3)
    values = {name: values_of(rng.random(9)) for name in "abc"}
    turned = {name: dict(reversed(of.items())) for name, of in values.items()}
    assert paired_tests(values) == paired_tests(turned)


def a_pair(first, second, adjusted, *, difference=1.0, images=9, error=0.1):
    return PairedTest(first, second, difference, images, error, 0.0, adjusted, 0.0, 0.0)


def of_pairs(apart, methods):
    return [a_pair(a, b, 0.01 if (a, b) in apart else 0.5) for a, b in combinations(methods, 2)]


def test_groups_by_hand():
    # b is told from neither a nor c, which differ.
    found = rank_methods("abc", of_pairs({("a", "c")}, "abc"))
    assert [found[m].groups for m in "abc"] == ["a", "ab", "b"]
    assert [str(found[m]) for m in "abc"] == ["1 tied", "1 tied", "2 tied"]
    clear = rank_methods("abc", of_pairs({("a", "b"), ("a", "c"), ("b", "c")}, "abc"))
    assert [(str(clear[m]), clear[m].groups) for m in "abc"] == [("1", "a"), ("2", "b"), ("3", "c")]
    none = rank_methods("abc", of_pairs(set(), "abc"))
    assert [(str(none[m]), none[m].groups) for m in "abc"] == [("1 tied", "a")] * 3


def test_lower_values_can_be_better():
    test = a_pair("a", "b", 0.01)
    assert rank_methods("ab", [test])["a"].rank == 1
    assert rank_methods("ba", [test], higher_is_better=False)["b"].rank == 1
    assert rank_methods("ba", [test], higher_is_better=False)["a"].rank == 2


@given(st.integers(1, 7), st.data())
@settings(max_examples=50)
def test_two_methods_share_a_letter_exactly_where_they_were_not_told_apart(count, data):
    methods = "abcdefg"[:count]
    apart = {pair for pair in combinations(methods, 2) if data.draw(st.booleans())}
    found = rank_methods(methods, of_pairs(apart, methods))
    for pair in combinations(methods, 2):
        shared = set(found[pair[0]].groups) & set(found[pair[1]].groups)
        assert bool(shared) == (pair not in apart)
    assert all(found[m].groups for m in methods)


# Simulations. Images are of differing difficulty, which all methods share, and of differing noise.
TRIALS, IMAGES = 1000, 24


def decisions(means, seed):
    """Whether each pair of methods was told apart, ``(trials, pairs)``."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0.5, 0.3, (IMAGES, TRIALS, 1))
    spread = rng.exponential(0.1, (IMAGES, TRIALS, 1))
    scores = difficulty + means + spread * rng.standard_t(3, (IMAGES, TRIALS, len(means)))
    pairs = list(combinations(range(len(means)), 2))
    differences = np.stack([scores[..., a] - scores[..., b] for a, b in pairs], axis=-1)
    p = sign_flip_test(differences.reshape(IMAGES, -1), patterns=1999, seed=seed)
    return holm(p.reshape(TRIALS, len(pairs))) <= 0.05, pairs


def test_planted_ties_are_told_apart_no_more_often_than_the_stated_rate():
    rejected, _ = decisions(np.zeros(5), seed=0)
    family_wise = rejected.any(axis=1).mean()
    # Three standard errors of a share of 1000 trials above the stated 0.05: 0.021.
    assert family_wise <= 0.05 + 0.021
    # And the test isn't idle: Holm of ten dependent pairs is conservative, not blind.
    assert family_wise >= 0.005


def test_without_the_correction_ties_would_be_told_apart_too_often():
    rng = np.random.default_rng(4)
    scores = rng.normal(size=(IMAGES, TRIALS, 5))
    pairs = list(combinations(range(5), 2))
    differences = np.stack([scores[..., a] - scores[..., b] for a, b in pairs], axis=-1)
    p = sign_flip_test(differences.reshape(IMAGES, -1), patterns=1999).reshape(TRIALS, -1)
    assert (p <= 0.05).any(axis=1).mean() > 0.15


def test_a_planted_difference_is_found_and_the_tie_beside_it_is_a_tie():
    # Two equal methods, and one that is worse by about a standard deviation of the differences.
    rejected, pairs = decisions(np.array([0.3, 0.3, 0.0]), seed=1)
    tie = pairs.index((0, 1))
    assert rejected[:, tie].mean() <= 0.05 + 0.021
    for pair in ((0, 2), (1, 2)):
        assert rejected[:, pairs.index(pair)].mean() > 0.9


def test_the_whole_way_from_values_to_groups():
    rng = np.random.default_rng(5)
    easy = rng.normal(0, 0.3, 40)
    values = {
        name: values_of(easy + mean + rng.normal(0, 0.1, 40))
        for name, mean in (("good", 0.6), ("as good", 0.6), ("bad", 0.2))
    }
    found = rank_methods(["good", "as good", "bad"], paired_tests(values))
    assert [str(one) for one in found.values()] == ["1 tied", "1 tied", "3"]
    assert [one.groups for one in found.values()] == ["a", "a", "b"]


def test_the_best_is_tested_with_all_and_methods_with_their_own_controls():
    methods = ["a", "b", "c", "even", "other.a", "other.b"]
    controls = {"a": ["even", "other.a"], "b": ["even", "other.b"], "c": ["even"]}
    assert pairs_with("b", methods, controls) == [
        ("a", "b"), ("a", "even"), ("a", "other.a"), ("b", "c"), ("b", "even"), ("b", "other.a"),
        ("b", "other.b"), ("c", "even"),
    ]  # fmt: skip


def test_fewer_pairs_are_corrected_less():
    rng = np.random.default_rng(8)
    values = {
        name: values_of(rng.normal(mean, 1, 60)) for name, mean in {"a": 1, "b": 0, "c": 0}.items()
    }
    wanted = [("a", "b"), ("a", "c")]
    some = paired_tests(values, wanted)
    every = {(test.first, test.second): test for test in paired_tests(values)}
    assert [(test.first, test.second) for test in some] == wanted
    for test in some:
        assert test.difference == every[test.first, test.second].difference
        assert test.adjusted <= 2 * test.p


def test_standings_against_the_best_by_hand():
    tests = [
        a_pair("a", "b", 0.01, difference=0.3),
        a_pair("c", "a", 0.01, difference=0.2),
        a_pair("a", "d", 0.2, difference=0.1),
        a_pair("b", "d", 0.01),
    ]
    found = standings_against("a", "abcd", tests)
    assert {name: str(one) for name, one in found.items()} == {
        "a": "best", "b": "lower", "c": "higher", "d": "tied"
    }  # fmt: skip
    turned = standings_against("a", "abcd", tests, higher_is_better=False)
    assert [str(turned[name]) for name in "bc"] == ["higher", "lower"]
    assert [one.rank for one in found.values()] == [None] * 4


def test_naming_the_best_by_the_values_that_are_tested_would_find_what_isn_t_there():
    """Why the best row is that of the calibration split: of six equal methods the best of the same
    images differs from another far more often than one time in twenty."""
    rng = np.random.default_rng(6)
    scores = rng.normal(size=(24, 600, 6))

    def found(best):
        own = np.take_along_axis(scores, best[None, :, None], axis=2)
        differences = own - scores
        p = sign_flip_test(differences.reshape(24, -1), patterns=1999).reshape(600, 6)
        others = np.arange(6) != best[:, None]
        return (holm(p[others].reshape(600, 5)) <= 0.05).any(axis=1).mean()

    assert found(scores.mean(axis=0).argmax(axis=1)) > 0.08
    # Three standard errors of a share of 600 trials above the stated 0.05: 0.027.
    assert found(rng.integers(0, 6, 600)) <= 0.05 + 0.027


@pytest.mark.parametrize(("images", "pairs"), [(40, 1), (120, 12)])
def test_the_smallest_difference_is_found_as_often_as_is_said(images, pairs):
    """Planted at the size that the table tells, among pairs that don't differ."""
    rng = np.random.default_rng(7)
    noise = rng.normal(0, 0.2, (images, 500))
    test = a_pair("a", "b", 1.0, images=images, error=0.2 / np.sqrt(images))
    size = smallest_difference([test] * pairs)
    p = sign_flip_test(noise + size, line=0.05 / pairs)
    # 500 trials of a chance of 0.8 have a standard error of 0.018; the test is not a t test.
    assert (p <= 0.05 / pairs).mean() == pytest.approx(0.8, abs=0.07)
    assert (sign_flip_test(noise + size / 2, line=0.05 / pairs) <= 0.05 / pairs).mean() < 0.45


def test_of_too_few_images_no_difference_is_large_enough():
    assert smallest_difference([a_pair("a", "b", 1.0, images=5)]) == np.inf
    assert np.isnan(smallest_difference([a_pair("a", "b", 1.0, error=0.0)]))
    (test,) = paired_tests({"a": values_of([0.2, 0.6, 0.4]), "b": values_of([0.1, 0.1, 0.1])})
    assert test.error == pytest.approx(sem([0.1, 0.5, 0.3]))


def test_of_few_images_nothing_can_be_told():
    values = {name: values_of(mean + np.zeros(4)) for name, mean in (("a", 1.0), ("b", 0.0))}
    (test,) = paired_tests(values)
    assert test.p == 2 / 2**4
    assert rank_methods(["a", "b"], [test])["b"].rank == 1


def test_every_pattern_of_signs_is_counted_once():
    differences = np.array([[1.0], [2.0], [4.0], [8.0]])
    sums = [abs(np.dot(s, [1, 2, 4, 8])) for s in product([-1, 1], repeat=4)]
    assert sign_flip_test(differences).tolist() == [np.mean(np.array(sums) >= 15)]
