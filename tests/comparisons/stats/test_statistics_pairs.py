"""Paired tests, their correction and the groups made of them; planted differences and ties."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import permutation_test, wilcoxon

from wordlight.comparisons.stats.paired_tests import (
    PairedTest,
    holm,
    paired_tests,
    sign_flip_test,
    standings,
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
    differences = rng.normal(0.3, 1, (12, 50))
    exact = sign_flip_test(differences, patterns=4096)
    drawn = sign_flip_test(differences, patterns=4000)
    # A share of 4000 draws has a standard error of at most 0.008.
    assert np.abs(exact - drawn).max() < 0.03
    assert (drawn >= 1 / 4001).all()
    assert np.array_equal(drawn, sign_flip_test(differences, patterns=4000))


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


def of_pairs(apart, methods):
    return [
        PairedTest(a, b, 1.0, 9, 0.0, 0.01 if (a, b) in apart else 0.5, 0.0, 0.0)
        for a, b in combinations(methods, 2)
    ]


def test_groups_by_hand():
    # b is told from neither a nor c, which differ.
    found = standings("abc", of_pairs({("a", "c")}, "abc"))
    assert [found[m].groups for m in "abc"] == ["a", "ab", "b"]
    assert [str(found[m]) for m in "abc"] == ["1 tied", "1 tied", "2 tied"]
    clear = standings("abc", of_pairs({("a", "b"), ("a", "c"), ("b", "c")}, "abc"))
    assert [(str(clear[m]), clear[m].groups) for m in "abc"] == [("1", "a"), ("2", "b"), ("3", "c")]
    none = standings("abc", of_pairs(set(), "abc"))
    assert [(str(none[m]), none[m].groups) for m in "abc"] == [("1 tied", "a")] * 3


def test_lower_values_can_be_better():
    test = PairedTest("a", "b", 1.0, 9, 0.0, 0.01, 0.0, 0.0)
    assert standings("ab", [test])["a"].rank == 1
    assert standings("ba", [test], higher_is_better=False)["b"].rank == 1
    assert standings("ba", [test], higher_is_better=False)["a"].rank == 2


@given(st.integers(1, 7), st.data())
@settings(max_examples=50)
def test_two_methods_share_a_letter_exactly_where_they_were_not_told_apart(count, data):
    methods = "abcdefg"[:count]
    apart = {pair for pair in combinations(methods, 2) if data.draw(st.booleans())}
    found = standings(methods, of_pairs(apart, methods))
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
    found = standings(["good", "as good", "bad"], paired_tests(values))
    assert [str(one) for one in found.values()] == ["1 tied", "1 tied", "3"]
    assert [one.groups for one in found.values()] == ["a", "a", "b"]


def test_of_few_images_nothing_can_be_told():
    values = {name: values_of(mean + np.zeros(4)) for name, mean in (("a", 1.0), ("b", 0.0))}
    (test,) = paired_tests(values)
    assert test.p == 2 / 2**4
    assert standings(["a", "b"], [test])["b"].rank == 1


def test_every_pattern_of_signs_is_counted_once():
    differences = np.array([[1.0], [2.0], [4.0], [8.0]])
    sums = [abs(np.dot(s, [1, 2, 4, 8])) for s in product([-1, 1], repeat=4)]
    assert sign_flip_test(differences).tolist() == [np.mean(np.array(sums) >= 15)]
