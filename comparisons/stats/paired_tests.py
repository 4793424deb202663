"""Tests of which methods differ on the same images: paired, corrected for how many there are."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import wilcoxon

FloatArray = npt.NDArray[np.float64]

#: The chance that any of a table's differences is found where there is none.
ALPHA = 0.05
#: Sign patterns that are drawn at least; where there are fewer, all are counted.
PATTERNS = 9999
#: How many signs are held at a time, 8 bytes each.
_HELD = 2**17

#: A method's values: of each word, which is named by its image and whatever else.
Values = Mapping[tuple[str, Any], float]


@dataclass(frozen=True)
class PairedTest:
    """Two methods on the words that both have a value of.

    Attributes:
        first, second: the methods.
        difference: the mean over words of the first's value less the second's.
        images: how many images.
        p: two-sided, of the sign-flip permutation test of ``difference``.
        adjusted: ``p`` after Holm's correction over the table's pairs.
        wilcoxon, wilcoxon_adjusted: the same of Wilcoxon's signed-rank test of the images' means.
    """

    first: str
    second: str
    difference: float
    images: int
    p: float
    adjusted: float
    wilcoxon: float
    wilcoxon_adjusted: float


def paired_tests(values: Mapping[str, Values], *, seed: int = 0) -> tuple[PairedTest, ...]:
    """Test every pair of methods.

    Words of one image aren't independent, so images are what is exchanged: where two methods are
    as good, an image's difference (summed over its words) might as well have had the other sign.
    The smallest p of n images is 2 / 2ⁿ, so that of few images nothing can be told.

    Args:
        values: of each method, higher or lower being better alike.
        seed: of the sign patterns, which all pairs share.
    """
    pairs = list(combinations(values, 2))
    samples = sorted({sample for of in values.values() for sample, _ in of})
    place = {sample: index for index, sample in enumerate(samples)}
    sums = np.zeros((len(samples), len(pairs)))
    counts = np.zeros((len(samples), len(pairs)))
    for column, (first, second) in enumerate(pairs):
        # Sorted: sums are to the bit the same, whatever order words came in.
        for key in sorted(values[first].keys() & values[second].keys(), key=repr):
            sums[place[key[0]], column] += values[first][key] - values[second][key]
            counts[place[key[0]], column] += 1
    words = counts.sum(axis=0)
    patterns = max(PATTERNS, int(10 * len(pairs) / ALPHA))
    flips = sign_flip_test(sums, patterns=patterns, seed=seed)
    ranks = np.array(
        [_wilcoxon(s[c > 0] / c[c > 0]) for s, c in zip(sums.T, counts.T, strict=True)]
    )
    differences = sums.sum(axis=0) / np.maximum(words, 1)
    images = (counts > 0).sum(axis=0)
    adjusted, ranks_adjusted = holm(flips), holm(ranks)
    return tuple(
        PairedTest(
            first=first,
            second=second,
            difference=float(differences[k]),
            images=int(images[k]),
            p=float(flips[k]),
            adjusted=float(adjusted[k]),
            wilcoxon=float(ranks[k]),
            wilcoxon_adjusted=float(ranks_adjusted[k]),
        )
        for k, (first, second) in enumerate(pairs)
    )


def sign_flip_test(
    differences: FloatArray, *, patterns: int = PATTERNS, seed: int = 0
) -> FloatArray:
    """Two-sided p of each column's sum, among all sums with the rows' signs flipped.

    All sign patterns are counted where there are at most ``patterns``; otherwise so many are
    drawn, and the one that was seen counts among them.

    Args:
        differences: ``(images, columns)``.
        patterns: at most how many sign patterns are looked at.
        seed: of those that are drawn.

    Returns:
        ``(columns,)``, above 0 and at most 1.
    """
    images, columns = differences.shape
    # A sum that only rounding tells from the one that was seen is as large.
    seen = np.abs(differences.sum(axis=0)) - 1e-9 * np.abs(differences).sum(axis=0)
    every = images < 62 and 2**images <= patterns
    total = 2**images if every else patterns
    as_large = np.zeros(columns)
    rows = max(1, _HELD // max(images, 1))
    rng = np.random.default_rng(seed)
    for start in range(0, total, rows):
        size = min(rows, total - start)
        if every:
            numbers = np.arange(start, start + size)[:, None] >> np.arange(images)
            signs = 1.0 - 2.0 * (numbers & 1)
        else:
            signs = rng.choice([-1.0, 1.0], size=(size, images))
        as_large += (np.abs(signs @ differences) >= seen).sum(axis=0)
    found: FloatArray = as_large / total if every else (1 + as_large) / (1 + total)
    return found


def _wilcoxon(differences: FloatArray) -> float:
    if not differences.any():
        return 1.0
    with warnings.catch_warnings():
        # Of few images it says that its approximation is rough; those that are too few can't
        # differ by the permutation test either.
        warnings.simplefilter("ignore", UserWarning)
        return float(wilcoxon(differences, zero_method="pratt").pvalue)


def holm(p: FloatArray) -> FloatArray:
    """Holm's step-down correction along the last axis: rejecting what is at most α afterwards has
    a chance of at most α of rejecting anything that is true, however the tests depend on each
    other (Holm 1979)."""
    count = p.shape[-1]
    order = np.argsort(p, axis=-1)
    steps = np.take_along_axis(p, order, axis=-1) * np.arange(count, 0, -1)
    rising = np.minimum(np.maximum.accumulate(steps, axis=-1), 1.0)
    adjusted = np.empty_like(rising)
    np.put_along_axis(adjusted, order, rising, axis=-1)
    return adjusted


@dataclass(frozen=True)
class Standing:
    """A method among the others.

    Attributes:
        rank: one more than the number of methods that are significantly better.
        tied: whether it can't be told apart from another, and so shares a letter with one.
        groups: letters; two methods share one where no difference between them was found.
    """

    rank: int
    tied: bool
    groups: str

    def __str__(self) -> str:
        return f"{self.rank} tied" if self.tied else str(self.rank)


def standings(
    methods: Sequence[str],
    tests: Sequence[PairedTest],
    *,
    higher_is_better: bool = True,
    alpha: float = ALPHA,
) -> dict[str, Standing]:
    """Every method's rank and groups, from the corrected p of the permutation tests.

    Args:
        methods: best first: the letters go in that order.
        tests: of all pairs.
        higher_is_better: which way the values point.
        alpha: the family-wise error rate.
    """
    better: dict[str, int] = dict.fromkeys(methods, 0)
    apart: set[frozenset[str]] = set()
    for test in tests:
        if test.adjusted <= alpha:
            apart.add(frozenset((test.first, test.second)))
            better[test.second if (test.difference > 0) == higher_is_better else test.first] += 1
    ranks = {method: 1 + count for method, count in better.items()}
    groups = _groups(methods, apart)
    letters: dict[str, str] = dict.fromkeys(methods, "")
    for number, group in enumerate(groups):
        letter = chr(ord("a") + number % 26) + (str(number // 26 + 1) if number >= 26 else "")
        for method in methods:
            if method in group:
                letters[method] += letter
    return {
        method: Standing(
            ranks[method],
            any(method in group and len(group) > 1 for group in groups),
            letters[method],
        )
        for method in methods
    }


def _groups(methods: Sequence[str], apart: set[frozenset[str]]) -> list[set[str]]:
    """The largest sets of methods without a pair that is apart; each pair that isn't is in one.

    By insertion and absorption (Piepho 2004): whichever group holds both of a pair that is apart
    is split into one without either, and groups inside others are dropped.
    """
    groups: list[set[str]] = [set(methods)] if methods else []
    for first, second in combinations(methods, 2):
        if frozenset((first, second)) in apart:
            split: list[set[str]] = []
            for group in groups:
                split += (
                    [group - {first}, group - {second}] if {first, second} <= group else [group]
                )
            distinct = [g for i, g in enumerate(split) if g and g not in split[:i]]
            groups = [g for g in distinct if not any(g < other for other in distinct)]
    return sorted(groups, key=lambda group: sorted(methods.index(method) for method in group))
