"""Tests of which methods differ on the same images: paired, corrected for how many there are."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit
from scipy.stats import wilcoxon

FloatArray = npt.NDArray[np.float64]

#: The chance that any of a table's differences is found where there is none.
ALPHA = 0.05
#: Sign patterns that are drawn at least; where there are fewer, all are counted.
PATTERNS = 9999
#: How many of them must be as large as what was seen, for a p that isn't clearly below the line:
#: its standard error is a twentieth of it then.
HITS = 400
#: How often a difference of the size that a table says it could find is found.
POWER = 0.8
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
        images: the number of images.
        error: the standard error of ``difference`` over images; nan of fewer than two.
        p: two-sided, of the sign-flip permutation test of ``difference``.
        adjusted: ``p`` after Holm's correction over the table's pairs.
        wilcoxon, wilcoxon_adjusted: the same of Wilcoxon's signed-rank test of the images' means.
    """

    first: str
    second: str
    difference: float
    images: int
    error: float
    p: float
    adjusted: float
    wilcoxon: float
    wilcoxon_adjusted: float


def paired_tests(
    values: Mapping[str, Values],
    pairs: Iterable[tuple[str, str]] | None = None,
    *,
    seed: int = 0,
) -> tuple[PairedTest, ...]:
    """Test pairs of methods.

    Words of one image aren't independent, so images are what is exchanged: where two methods are
    as good, an image's difference (summed over its words) might as well have had the other sign.
    The smallest p of n images is 2 / 2ⁿ, so that of few images nothing can be told.

    Args:
        values: of each method, higher or lower being better alike.
        pairs: which; Holm's correction is over them. Every pair for None. They must have been
            named without a look at these values.
        seed: of the sign patterns, which all pairs share.
    """
    pairs = list(combinations(values, 2) if pairs is None else pairs)
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
    flips = sign_flip_test(sums, line=ALPHA / max(len(pairs), 1), seed=seed)
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
            error=_standard_error(sums[:, k], counts[:, k]),
            p=float(flips[k]),
            adjusted=float(adjusted[k]),
            wilcoxon=float(ranks[k]),
            wilcoxon_adjusted=float(ranks_adjusted[k]),
        )
        for k, (first, second) in enumerate(pairs)
    )


def sign_flip_test(
    differences: FloatArray, *, line: float = ALPHA, patterns: int = PATTERNS, seed: int = 0
) -> FloatArray:
    """Two-sided p of each column's sum, among all sums with the rows' signs flipped.

    Where there are few enough sign patterns all of them are counted; otherwise they are drawn, and
    the one that was seen counts among them. Drawing goes on for a column until its p is clearly
    below the line, or ``HITS`` patterns were as large as what was seen (Besag and Clifford,
    Biometrika 78, 1991): what is near the line isn't left to chance.

    Args:
        differences: ``(images, columns)``.
        line: the p that decides, of the strictest test.
        patterns: the least number that is drawn.
        seed: of those that are drawn.

    Returns:
        ``(columns,)``, above 0 and at most 1.
    """
    images, columns = differences.shape
    # A sum that only rounding tells from the one that was seen is as large.
    seen = np.abs(differences.sum(axis=0)) - 1e-9 * np.abs(differences).sum(axis=0)
    most = max(patterns, math.ceil(HITS / line))
    every = images < 62 and 2**images <= most
    total = 2**images if every else most
    hits, drawn = np.zeros(columns), np.zeros(columns)
    open_ = np.arange(columns)
    rows = max(1, _HELD // max(images, 1))
    rng = np.random.default_rng(seed)
    for start in range(0, total, rows):
        size = min(rows, total - start)
        signs = _patterns(start, size, images) if every else _drawn(rng, size, images)
        hits[open_] += (np.abs(signs @ differences[:, open_]) >= seen[open_]).sum(axis=0)
        drawn[open_] += size
        if not every and start + size >= patterns:
            open_ = open_[~_is_settled(hits[open_], start + size, line)]
            if not open_.size:
                break
    found: FloatArray = hits / drawn if every else (1 + hits) / (1 + drawn)
    return found


def _patterns(start: int, size: int, images: int) -> FloatArray:
    numbers = np.arange(start, start + size)[:, None] >> np.arange(images)
    signs: FloatArray = np.where(numbers & 1, -1.0, 1.0)
    return signs


def _drawn(rng: np.random.Generator, size: int, images: int) -> FloatArray:
    bits = np.unpackbits(rng.integers(0, 256, (size, -(-images // 8)), np.uint8), axis=1)
    signs: FloatArray = np.where(bits[:, :images], -1.0, 1.0)
    return signs


def _is_settled(hits: FloatArray, drawn: int, line: float) -> npt.NDArray[np.bool_]:
    """Return which counts are enough: many, or below the line by four standard errors."""
    settled: npt.NDArray[np.bool_] = (hits >= HITS) | (hits + 4 * np.sqrt(hits + 1) < drawn * line)
    return settled


def _standard_error(sums: FloatArray, counts: FloatArray) -> float:
    """The standard error of a ratio of sums over images, as ``mean_over_words`` has it."""
    there = counts > 0
    images, words = int(there.sum()), float(counts.sum())
    if images < 2:
        return math.nan
    off = (sums - counts * sums.sum() / words)[there]
    return math.sqrt(images / (images - 1) * float(off @ off)) / words


def smallest_difference(tests: Sequence[PairedTest], alpha: float = ALPHA) -> float:
    """Return the difference that the middle one of these pairs would show ``POWER`` of the time.

    By the t distribution, at the strictest of Holm's levels: ``alpha`` over the number of pairs.
    Infinite where so few images can't show any, nan where no pair has a standard error.
    """
    level = alpha / max(len(tests), 1)
    found = []
    for test in tests:
        if not test.error > 0:
            continue
        freedom = test.images - 1
        reach = stdtrit(freedom, 1 - level / 2) + stdtrit(freedom, POWER)
        found.append(math.inf if 2.0 ** (1 - test.images) > level else float(reach) * test.error)
    return float(np.median(found)) if found else math.nan


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


#: A method beside the one that it was tested against: that one itself, no difference found,
#: significantly worse, significantly better.
AgainstBest = Literal["best", "tied", "lower", "higher"]


@dataclass(frozen=True)
class MethodRank:
    """A method among the others.

    Attributes:
        rank: one more than the number of methods that are significantly better; None where not
            every pair was tested.
        tied: whether it can't be told apart from another, and so shares a letter with one.
        groups: letters; two methods share one where no difference between them was found.
        against_best: where not every pair was tested, how it compares with the method that all
            were tested against.
    """

    rank: int | None
    tied: bool
    groups: str
    against_best: AgainstBest | None = None

    def __str__(self) -> str:
        if self.against_best is not None:
            return self.against_best
        return f"{self.rank} tied" if self.tied else str(self.rank)

    @property
    def shown(self) -> str:
        """The whole of it, as tables have it."""
        return str(self) if self.rank is None else f"{self} ({self.groups})"


def pairs_with(
    best: str, methods: Sequence[str], controls: Mapping[str, Collection[str]]
) -> list[tuple[str, str]]:
    """The pairs of one method with all others, and of every method with its controls.

    Args:
        best: that one; it must have been named without a look at the values that are tested.
        methods: all, controls among them.
        controls: of each method that is no control, its controls' names.
    """
    wanted = {frozenset((best, other)) for other in methods if other != best}
    for method, own in controls.items():
        wanted |= {frozenset((method, control)) for control in own if control in methods}
    return [pair for pair in combinations(methods, 2) if frozenset(pair) in wanted]


def standings_against(
    best: str,
    methods: Sequence[str],
    tests: Sequence[PairedTest],
    *,
    higher_is_better: bool = True,
    alpha: float = ALPHA,
) -> dict[str, MethodRank]:
    """Every method beside ``best``, from the corrected p of the permutation tests with it."""
    found: dict[str, AgainstBest] = dict.fromkeys(methods, "tied")
    found[best] = "best"
    for test in tests:
        if best in (test.first, test.second) and test.adjusted <= alpha:
            other = test.second if test.first == best else test.first
            best_wins = (test.difference > 0) == (higher_is_better == (test.first == best))
            found[other] = "lower" if best_wins else "higher"
    tied = {name: word == "tied" for name, word in found.items()}
    tied[best] = any(tied.values())
    return {name: MethodRank(None, tied[name], "", word) for name, word in found.items()}


def rank_methods(
    methods: Sequence[str],
    tests: Sequence[PairedTest],
    *,
    higher_is_better: bool = True,
    alpha: float = ALPHA,
) -> dict[str, MethodRank]:
    """Every method's rank and groups, from the corrected p of the permutation tests.

    Args:
        methods: best first: the letters go in that order.
        tests: of all pairs.
        higher_is_better: whether greater values are better.
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
        method: MethodRank(
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
