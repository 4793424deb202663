"""What a comparison found: one estimate a row and metric, and how it came about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wordlight.comparisons.calibration import Choice
from wordlight.comparisons.ceiling import ceiling_map
from wordlight.comparisons.cells import COST_METRICS, Score
from wordlight.comparisons.datasets import OTHER_ROWS, Accounting, DatasetItem
from wordlight.comparisons.entries import Entry
from wordlight.comparisons.judging import judge
from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.segmentation import BEST, METRICS, Thresholds
from wordlight.comparisons.statistics import Estimate


@dataclass(frozen=True)
class Row:
    """One method's estimate of one metric."""

    framework: str
    method: str
    metric: str
    estimate: Estimate

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
        return {**who, **numbers, "n": self.estimate.n}


@dataclass(frozen=True, eq=False)
class Facts:
    """What a reader must know beside the scores.

    ``steps`` are the indices of the denoising steps that the table's methods looked at, of
    ``sampling_steps``; ``prompts_followed`` is left to the model's own card. ``budget`` is the most
    that an image might cost, in forward-equivalents, where there was one.
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
        facts: the rest that a reader must know.
        out: the folder of the results.
    """

    rows: tuple[Row, ...]
    other: dict[str, tuple[Row, ...]]
    ceiling: dict[str, Estimate]
    other_ceiling: dict[str, Estimate]
    entries: tuple[Entry, ...]
    choices: dict[str, Choice]
    ceiling_threshold: float
    facts: Facts
    out: Path

    def estimate(self, method: str, metric: str = BEST) -> Estimate:
        """One headline estimate; raises KeyError for a method or metric that isn't there."""
        for row in self.rows:
            if (row.method, row.metric) == (method, metric):
                return row.estimate
        raise KeyError(f"no {metric!r} of {method!r} here")

    def to_json(self) -> list[dict[str, Any]]:
        """The headline rows as plain data."""
        return [row.to_json() for row in self.rows]

    @property
    def text(self) -> str:
        """The table, for a terminal."""
        from wordlight.comparisons.table import plain

        return plain(self)

    @property
    def markdown(self) -> str:
        """The table, in Markdown."""
        from wordlight.comparisons.table import markdown

        return markdown(self)

    def __str__(self) -> str:
        return self.text


def check_headline(items: Sequence[DatasetItem]) -> None:
    """Raises ValueError when no image has a headline word."""
    if not any(scored.headline for item in items for scored in item.words):
        raise ValueError(
            "no test image shows two of the objects that were asked for, so there is no headline "
            "word: take more images, or a model that follows such prompts better"
        )


def summarise(
    entries: Sequence[Entry],
    scores: dict[str, list[Score]],
    items: Sequence[DatasetItem],
    seed: int,
) -> tuple[tuple[Row, ...], dict[str, tuple[Row, ...]]]:
    """Headline rows, and rows by kind of other words, of the test split's scores by method."""
    kinds = {
        (item.sample, scored.word.text, scored.word.occurrence): scored.row
        for item in items
        for scored in item.words
    }
    rows: list[Row] = []
    other: dict[str, list[Row]] = {kind: [] for kind in OTHER_ROWS}
    for entry in entries:
        found = _Means(seed)
        for one in scores[entry.name]:
            cost = one.metric in COST_METRICS
            kind = "headline" if cost else kinds[one.sample, one.word, one.occurrence]
            found.add(kind, one.metric, one.sample, one.value)
        framework = scores[entry.name][0].framework if scores[entry.name] else ""
        for metric in (*METRICS, *COST_METRICS):
            rows.append(Row(framework, entry.name, metric, found.mean("headline", metric)))
        for kind, of in other.items():
            of.append(Row(framework, entry.name, BEST, found.mean(kind, BEST)))
    return tuple(rows), {kind: tuple(of) for kind, of in other.items()}


def summarise_ceiling(
    items: Sequence[DatasetItem], thresholds: Thresholds, seed: int
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """The ceiling of every metric over headline words, and of mIoU by kind of other words."""
    found = _Means(seed)
    for item in items:
        pairs = [(scored, ceiling_map(item, scored)) for scored in item.words]
        for scored, metric, value in judge(pairs, thresholds):
            found.add(scored.row, metric, item.sample, value)
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
