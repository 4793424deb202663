"""What a comparison found: one estimate a row and metric, and how it came about."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wordlight.comparisons.datasets import OTHER_ROWS, Accounting, DatasetItem
from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.metrics.registry import BEST, METRICS
from wordlight.comparisons.rows.calibration import Choice
from wordlight.comparisons.rows.entries import Entry
from wordlight.comparisons.runs.image_words import Survey
from wordlight.comparisons.stats.intervals import Estimate
from wordlight.comparisons.stats.paired_tests import PairedTest, Standing, paired_tests, standings
from wordlight.comparisons.store.cells import COST_METRICS, PEAK_BYTES, Score
from wordlight.comparisons.store.failures import Failure


@dataclass(frozen=True)
class Row:
    """One method's estimate of one metric; its standing is that of its headline mIoU."""

    framework: str
    method: str
    metric: str
    estimate: Estimate
    standing: Standing | None = None

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
        }
        return {**who, **numbers, "n": self.estimate.n, **standing}


@dataclass(frozen=True, eq=False)
class Facts:
    """What a reader must know beside the scores.

    ``steps`` are the indices of the denoising steps that the table's methods looked at, of
    ``sampling_steps``; ``prompts_followed`` is left to the model's own card. ``budget`` is the most
    that an image might cost, in forward-equivalents, where there was one. ``data`` is what a table
    calls the data set; None where the model drew the scenes' prompts. ``headline`` says which words
    the headline rows are over; ``not_measured`` names rows that were asked for and can't be had,
    lost ones among them, each with why. ``frameworks`` are all that made maps; ``framework`` is the
    one that made the images' trajectories.
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
    accounting: Accounting
    calibration_accounting: Accounting
    budget: int | None = None
    data: str | None = None
    headline: str = "shape nouns in images of two or more objects"
    frameworks: tuple[str, ...] = ()
    not_measured: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class Comparison:
    """The answer of ``compare``.

    Attributes:
        rows: the headline, one row a method and metric.
        other: mIoU at the chosen threshold over other words, by kind of word.
        ceiling: what the latent grid alone allows, by metric, over the headline words.
        other_ceiling: the same by kind of word, at the chosen threshold.
        entries: the methods, in order.
        choices: what the calibration split chose, by method.
        ceiling_threshold: the same for the ceiling.
        tests: every pair of ranked methods, tested on the headline mIoU.
        facts: the rest that a reader must know.
        out: the folder of the results.
        failures: cells that failed; their images are left out of their rows.
        lost: rows that have no scores in the table, since there was no word to choose a threshold
            on; ``facts.not_measured`` says why.
        damaged: files of the run that were damaged and were made again.
    """

    rows: tuple[Row, ...]
    other: dict[str, tuple[Row, ...]]
    ceiling: dict[str, Estimate]
    other_ceiling: dict[str, Estimate]
    entries: tuple[Entry, ...]
    choices: dict[str, Choice]
    ceiling_threshold: float
    tests: tuple[PairedTest, ...]
    facts: Facts
    out: Path
    failures: tuple[Failure, ...] = ()
    lost: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()

    def estimate(self, method: str, metric: str = BEST) -> Estimate:
        """One headline estimate; raises KeyError for a method or metric that isn't there."""
        for row in self.rows:
            if (row.method, row.metric) == (method, metric):
                return row.estimate
        raise KeyError(f"no {metric!r} of {method!r} here")

    def standing(self, method: str) -> Standing | None:
        """A method's rank by the headline mIoU; None for one that looks at other steps."""
        for row in self.rows:
            if (row.method, row.metric) == (method, BEST):
                return row.standing
        raise KeyError(f"no {method!r} here")

    def to_json(self) -> list[dict[str, Any]]:
        """The headline rows as plain data."""
        return [row.to_json() for row in self.rows]

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


def account(surveys: Iterable[Survey]) -> Accounting:
    """How many words were kept and dropped, by category."""
    kept: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for survey in surveys:
        kept.update(word.category for word in survey.words)
        dropped.update(survey.dropped)
    return Accounting.counted(kept, dropped)


def summarise(
    entries: Sequence[Entry],
    scores: Callable[[Entry, str], Sequence[Score]],
    surveys: Iterable[Survey],
    seed: int,
) -> tuple[tuple[Row, ...], dict[str, tuple[Row, ...]], tuple[PairedTest, ...]]:
    """Headline rows, rows by kind of other words, and the tests between the methods that are
    ranked.

    Args:
        entries: the rows.
        scores: gives a row's scores of one sample.
        surveys: of the test split's images; gone through once a row.
        seed: of the resampling.
    """
    rows: list[Row] = []
    other: dict[str, list[Row]] = {kind: [] for kind in OTHER_ROWS}
    headline: dict[str, dict[tuple[str, Hashable], float]] = {}
    for entry in entries:
        found = _Means(seed)
        of_entry = headline[entry.name] = {}
        for survey in surveys:
            kinds = survey.kinds()
            for one in scores(entry, survey.sample):
                cost = one.metric in COST_METRICS
                kind = "headline" if cost else kinds[one.word, one.occurrence]
                found.add(kind, one.metric, survey.sample, one.value)
                if kind == "headline" and one.metric == BEST:
                    of_entry[survey.sample, (one.word, one.occurrence)] = one.value
        for metric in (*METRICS, *COST_METRICS):
            mean = found.mean("headline", metric)
            rows.append(Row(entry.framework, entry.name, metric, mean))
        for kind, of in other.items():
            of.append(Row(entry.framework, entry.name, BEST, found.mean(kind, BEST)))
    if not any(row.estimate.n for row in rows if row.metric == PEAK_BYTES):
        # No device told: a table has no room for nothing.
        rows = [row for row in rows if row.metric != PEAK_BYTES]
    tests, ranked = _ranking(entries, headline, rows, seed)
    rows = [
        replace(row, standing=ranked.get(row.method)) if row.metric == BEST else row for row in rows
    ]
    return tuple(rows), {kind: tuple(of) for kind, of in other.items()}, tests


def _ranking(
    entries: Sequence[Entry],
    headline: dict[str, dict[tuple[str, Hashable], float]],
    rows: Sequence[Row],
    seed: int,
) -> tuple[tuple[PairedTest, ...], dict[str, Standing]]:
    means = {row.method: row.estimate.mean for row in rows if row.metric == BEST}
    # Rows that look at other steps stand apart, and are compared with none.
    names = [e.name for e in entries if not e.extra and not math.isnan(means[e.name])]
    tests = paired_tests({name: headline[name] for name in sorted(names)}, seed=seed)
    return tests, standings(sorted(names, key=lambda name: -means[name]), tests)


def summarise_ceiling(
    surveys: Iterable[Survey], seed: int
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """The ceiling of every metric over headline words, and of mIoU by kind of other words."""
    found = _Means(seed)
    for survey in surveys:
        for word in survey.words:
            for metric, value in word.ceiling.items():
                found.add(word.kind, metric, survey.sample, value)
    return (
        {metric: found.mean("headline", metric) for metric in METRICS},
        {kind: found.mean(kind, BEST) for kind in OTHER_ROWS},
    )


class _Means:
    """One row's metrics by kind of word."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._of: dict[tuple[str, str], Metric] = {}

    def add(self, kind: str, metric: str, sample: str, value: float) -> None:
        self._of.setdefault((kind, metric), Metric(metric)).add(sample, value)

    def mean(self, kind: str, metric: str) -> Estimate:
        return self._of.get((kind, metric), Metric(metric)).compute(seed=self._seed)
