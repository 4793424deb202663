"""The findings of a comparison: one estimate a row and metric, and how it came about."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wordlight.comparisons.datasets import OTHER_ROWS, DatasetItem, WordCounts
from wordlight.comparisons.metrics import cost
from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.metrics.segmentation import BEST
from wordlight.comparisons.rows.calibration import Choice
from wordlight.comparisons.rows.row import Row
from wordlight.comparisons.runs.bench import Bench
from wordlight.comparisons.runs.image_words import Survey
from wordlight.comparisons.stats.intervals import SHARE, ChoiceShares, Estimate, mean_over_words
from wordlight.comparisons.stats.paired_tests import (
    MethodRank,
    PairedTest,
    paired_tests,
    pairs_with,
    rank_methods,
    standings_against,
)
from wordlight.comparisons.store.cells import SOMETIMES, Cell
from wordlight.comparisons.store.failures import Failure


@dataclass(frozen=True)
class Result:
    """One method's estimate of one metric, and its standing by it."""

    framework: str
    method: str
    metric: str
    estimate: Estimate
    standing: MethodRank | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data; what can't be estimated is null."""
        numbers = {
            key: None if math.isnan(value) else value
            for key, value in (
                ("mean", self.estimate.mean),
                ("low", self.estimate.low),
                ("high", self.estimate.high),
            )
        }
        who = {"framework": self.framework, "method": self.method, "metric": self.metric}
        standing = {
            "rank": self.standing and self.standing.rank,
            "tied": self.standing and self.standing.tied,
            "groups": self.standing and self.standing.groups,
            "against_best": self.standing and self.standing.against_best,
        }
        return {**who, **numbers, "n": self.estimate.n, **standing}


@dataclass(frozen=True, eq=False)
class ComparisonFacts:
    """Facts that a reader must know beside the scores.

    ``steps`` are the indices of the denoising steps that the table's methods looked at, of
    ``sampling_steps``; ``prompts_followed`` is left to the model's own card. ``budget`` is the most
    that an image might cost, in forward-equivalents, where there was one. ``data`` is what a table
    calls the data set; None where the model drew the scenes' prompts. ``headline`` says which words
    the headline rows are over, and ``words`` how many there are; ``not_measured`` names rows that
    were asked for and can't be had, lost ones among them, each with why, and ``unmeasured`` such
    metrics. ``frameworks`` are all that made maps; ``framework`` is the one that made the images'
    trajectories.
    """

    model_id: str
    revision: str | None
    framework: str
    device: str
    seed: int
    n: int
    calibration: int
    steps: tuple[int, ...]
    sampling_steps: int
    accounting: WordCounts
    calibration_accounting: WordCounts
    budget: int | None = None
    data: str | None = None
    headline: str = "shape nouns in images of two or more objects"
    frameworks: tuple[str, ...] = ()
    not_measured: tuple[tuple[str, str], ...] = ()
    unmeasured: tuple[tuple[str, str], ...] = ()
    words: int = 0


@dataclass(frozen=True, eq=False)
class Comparison:
    """The answer of ``compare``.

    Attributes:
        results: the headline, one estimate for each row and metric.
        other: mIoU at the chosen threshold over other words, by kind of word.
        ceiling: the scores of the true masks on the latent grid, by metric, over the headline
            words.
        other_ceiling: the same by kind of word, at the chosen threshold.
        table_rows: the rows of the table, in order.
        choices: the calibration split's choices, by method.
        ceiling_threshold: the same for the ceiling.
        tests: the pairs of ranked methods that were tested, by the metric that they were tested on.
        metrics: the metrics, those of cost at the end.
        facts: the rest that a reader must know.
        out: the folder of the results.
        failures: cells that failed; their images are left out of their rows.
        lost: rows that have no scores in the table, since there was no word to choose a threshold
            on; ``facts.not_measured`` says why.
        damaged: files of the run that were damaged and were made again.
    """

    results: tuple[Result, ...]
    other: dict[str, tuple[Result, ...]]
    ceiling: dict[str, Estimate]
    other_ceiling: dict[str, Estimate]
    table_rows: tuple[Row, ...]
    choices: dict[str, Choice]
    ceiling_threshold: float
    tests: dict[str, tuple[PairedTest, ...]]
    metrics: tuple[Metric, ...]
    facts: ComparisonFacts
    out: Path
    failures: tuple[Failure, ...] = ()
    lost: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[Result, ...]:
        """``results``, by the name that they had before."""
        return self.results

    def result(self, method: str, metric: str = BEST) -> Result:
        """One method's result by one metric; raises KeyError for what isn't there."""
        if (method, metric) not in self._by_name:
            raise KeyError(f"no {metric!r} of {method!r} here")
        return self._by_name[method, metric]

    def has(self, method: str, metric: str) -> bool:
        """Return whether a method was judged by a metric."""
        return (method, metric) in self._by_name

    def estimate(self, method: str, metric: str = BEST) -> Estimate:
        """One headline estimate; raises KeyError for a method or metric that isn't there."""
        return self.result(method, metric).estimate

    def standing(self, method: str, metric: str = BEST) -> MethodRank | None:
        """A method's rank by a metric; None for one that isn't ranked by it, or that looks at other
        steps. Raises KeyError for a method or metric that isn't there."""
        return self.result(method, metric).standing

    @cached_property
    def _by_name(self) -> dict[tuple[str, str], Result]:
        return {(one.method, one.metric): one for one in self.results}

    def of_table(self, table: str) -> list[Metric]:
        """The metrics that stand in a table, in order."""
        return [
            metric for metric in self.metrics if metric.table == table and metric.over != "cost"
        ]

    @property
    def segments(self) -> bool:
        """True if maps were judged as segmentations, by the headline's metric."""
        return any(metric.name == BEST for metric in self.metrics)

    def to_json(self) -> list[dict[str, Any]]:
        """The headline estimates as plain data."""
        return [one.to_json() for one in self.results]

    @property
    def text(self) -> str:
        """The table, for a terminal."""
        from wordlight.comparisons.results.table import plain

        return plain(self)

    @property
    def latex(self) -> str:
        """The table, for LaTeX with booktabs."""
        from wordlight.comparisons.results.table import latex

        return latex(self)

    @property
    def csv(self) -> str:
        """Every estimate, a line each."""
        from wordlight.comparisons.results.table import csv

        return csv(self)

    @property
    def markdown(self) -> str:
        """The table, in Markdown."""
        from wordlight.comparisons.results.table import markdown

        return markdown(self)

    def __str__(self) -> str:
        return self.text


def check_headline(items: Iterable[DatasetItem]) -> None:
    """Raises ValueError when no image has a headline word."""
    if not any(scored.headline for item in items for scored in item.words):
        raise ValueError(
            "no test image shows two of the objects that were asked for, so there is no headline "
            "word: take more images, or a model that follows such prompts better"
        )


def account(surveys: Iterable[Survey]) -> WordCounts:
    """Return the counts of words that were kept and dropped, by category."""
    kept: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for survey in surveys:
        kept.update(word.category for word in survey.words)
        dropped.update(survey.dropped)
    return WordCounts.counted(kept, dropped)


def summarise(
    rows: Sequence[Row],
    bench: Bench,
    choices: Mapping[str, Choice],
    cell: Callable[[Row, str], Cell],
    surveys: Iterable[Survey],
) -> tuple[tuple[Result, ...], dict[str, tuple[Result, ...]], dict[str, tuple[PairedTest, ...]]]:
    """Headline rows, rows by kind of other words, and the tests between the methods that are
    ranked, by metric.

    Args:
        rows: the rows.
        bench: of the run.
        choices: the calibration split's, by row.
        cell: gives a row's cell of one sample.
        surveys: of the test split's images; gone through once a row.
    """
    by_name = {metric.name: metric for metric in (*bench.metrics, *cost.METRICS)}
    results: list[Result] = []
    other: dict[str, list[Result]] = {kind: [] for kind in OTHER_ROWS}
    values: dict[str, dict[str, _Values]] = {m.name: {} for m in bench.metrics if m.ranked}
    for row in rows:
        found = _Means()
        for survey in surveys:
            kinds = survey.kinds()
            of_sample = cell(row, survey.sample)
            for word, curve in of_sample.curves.items():
                found.add_curve(kinds[word], curve)
            for one in of_sample.scores:
                of_words = by_name[one.metric].of_headline
                kind = kinds[one.word, one.occurrence] if of_words else HEADLINE
                found.add(kind, one.metric, survey.sample, one.value)
                if kind == HEADLINE and one.metric in values:
                    of_row = values[one.metric].setdefault(row.name, {})
                    of_row[survey.sample, (one.word, one.occurrence)] = one.value
        shares = choices[row.name].shares
        for metric in (*bench.metrics_of(row), *cost.METRICS):
            mean = found.mean(HEADLINE, metric.name, metric.bounds, shares)
            results.append(Result(row.framework, row.name, metric.name, mean))
        if BEST in by_name and not row.reference:
            for kind, of in other.items():
                mean = found.mean(kind, BEST, SHARE, shares)
                of.append(Result(row.framework, row.name, BEST, mean))
    known = {one.metric for one in results if one.estimate.n or one.metric not in SOMETIMES}
    results = [one for one in results if one.metric in known]
    tests: dict[str, tuple[PairedTest, ...]] = {}
    for name, of_metric in values.items():
        best = _best_beforehand(choices) if bench.plan.pairs == "best" and name == BEST else None
        tests[name], ranked = _ranking(
            rows, by_name[name], of_metric, results, bench.plan.seed, best
        )
        results = [
            replace(one, standing=ranked.get(one.method)) if one.metric == name else one
            for one in results
        ]
    return tuple(results), {kind: tuple(of) for kind, of in other.items()}, tests


#: The kind of the words that the headline is of.
HEADLINE = "headline"
#: A row's values of a metric, by image and word.
_Values = dict[tuple[str, Hashable], float]


def _ranking(
    rows: Sequence[Row],
    metric: Metric,
    values: dict[str, _Values],
    results: Sequence[Result],
    seed: int,
    best: str | None,
) -> tuple[tuple[PairedTest, ...], dict[str, MethodRank]]:
    means = {one.method: one.estimate.mean for one in results if one.metric == metric.name}
    # Rows that look at other steps stand apart, and are compared with none.
    names = [
        row.name
        for row in rows
        if not (row.extra or is_reference(row, metric)) and row.name in values
    ]
    of_names = {name: values[name] for name in names}
    higher = metric.higher_is_better
    if best in of_names:
        tests = paired_tests(of_names, pairs_with(best, names, _controls(rows)), seed=seed)
        return tests, standings_against(best, names, tests, higher_is_better=higher)
    tests = paired_tests(of_names, seed=seed)
    turn = -1 if higher else 1
    order = sorted(names, key=lambda name: turn * means[name])
    return tests, rank_methods(order, tests, higher_is_better=higher)


def _best_beforehand(choices: Mapping[str, Choice]) -> str | None:
    """The row that did best on the calibration split: which one it is must not be read off the
    values that are tested, or its difference from the others would be the largest of many."""
    known = {name: one.miou for name, one in choices.items() if not math.isnan(one.miou)}
    return max(known, key=lambda name: known[name], default=None)


def _controls(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Of each method the names of the rows that it must beat: the controls of its framework, and
    its own map of another object's word."""
    return {
        row.name: [
            control.name
            for control in rows
            if control.family == "control"
            and control.framework == row.framework
            and (not control.shuffled or control.variants == row.variants)
        ]
        for row in rows
        if row.family != "control"
    }


def is_reference(row: Row, metric: Metric) -> bool:
    """Return whether a row's maps are what the metric holds others against."""
    return bool(metric.reference) and row.shows(metric.reference)


def summarise_ceiling(
    metrics: Sequence[Metric], surveys: Iterable[Survey]
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """The ceiling of every metric over headline words, and of mIoU by kind of other words."""
    found = _Means()
    for survey in surveys:
        for word in survey.words:
            for metric, value in word.ceiling.items():
                found.add(word.kind, metric, survey.sample, value)
    return (
        {metric.name: found.mean(HEADLINE, metric.name, metric.bounds) for metric in metrics},
        {kind: found.mean(kind, BEST, SHARE) for kind in OTHER_ROWS},
    )


class _Means:
    """One row's metrics by kind of word."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, str], list[tuple[str, float]]] = {}
        self._curves: dict[str, tuple[int, npt.NDArray[np.float64]]] = {}

    def add_curve(self, kind: str, curve: tuple[float, ...]) -> None:
        """A word's IoU at every threshold."""
        count, total = self._curves.get(kind, (0, np.zeros(len(curve))))
        self._curves[kind] = count + 1, total + curve

    def add(self, kind: str, metric: str, sample: str, value: float) -> None:
        self._of.setdefault((kind, metric), []).append((sample, value))

    def mean(
        self,
        kind: str,
        metric: str,
        bounds: tuple[float, float],
        shares: ChoiceShares | None = None,
    ) -> Estimate:
        # In one order, so that sums are to the bit the same, whatever order cells came in.
        values = sorted(self._of.get((kind, metric), ()))
        samples, scores = [s for s, _ in values], [v for _, v in values]
        if metric != BEST or shares is None or kind not in self._curves:
            return mean_over_words(samples, scores, bounds=bounds)
        count, total = self._curves[kind]
        curve = (total / count).tolist()
        return mean_over_words(samples, scores, choice=shares, curve=curve, bounds=bounds)
