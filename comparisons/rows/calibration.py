"""Choices made before the test split is looked at: thresholds, and options such as a width."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wordlight.comparisons.datasets import DatasetItem
from wordlight.comparisons.metrics.ceiling import ceiling_map
from wordlight.comparisons.metrics.judged import Thresholds
from wordlight.comparisons.metrics.segmentation import (
    ABSOLUTE_CURVE,
    ABSOLUTE_GRID,
    NORMALISED_CURVE,
    THRESHOLD_GRID,
    threshold_curve,
)
from wordlight.comparisons.rows.row import Row, Variant
from wordlight.comparisons.stats.intervals import ChoiceShares
from wordlight.comparisons.store.cells import Score


@dataclass(frozen=True, eq=False)
class Choice:
    """The calibration split's choice for a row: ``miou`` is what it reached there.

    Where nothing had to be chosen, there are no thresholds, and ``miou`` is nan. ``shares`` says
    how often resampled images choose each threshold of the normalised maps, of the same variant.
    """

    variant: Variant
    thresholds: Thresholds | None = None
    miou: float = math.nan
    shares: ChoiceShares | None = None

    @property
    def threshold(self) -> float:
        """The threshold of its normalised maps; nan where that wasn't chosen."""
        return math.nan if self.thresholds is None else self.thresholds.normalised


def choose(row: Row, scores: Sequence[Sequence[Score]], *, seed: int = 0) -> Choice:
    """The variant and threshold with the highest mIoU over the calibration split's headline words,
    and that variant's best absolute threshold.

    The first of equals, so a constant map gets the lowest threshold.

    Args:
        row: the row.
        scores: of each of its variants, over all calibration images.
        seed: of the resampling.

    Raises:
        ValueError: no headline word was scored.
    """
    best: Choice | None = None
    chosen_on: Sequence[Score] = ()
    for variant, of_variant in zip(row.variants, scores, strict=True):
        curves: dict[str, list[float]] = {}
        for one in of_variant:
            curves.setdefault(one.metric, []).append(one.value)
        thresholds, miou = _best(curves, row.label)
        if best is None or miou > best.miou:
            best, chosen_on = Choice(variant, thresholds, miou), of_variant
    if best is None:
        raise ValueError(f"{row.label} has no variant to choose from")
    return replace(best, shares=_shares(chosen_on, seed))


def _shares(scores: Sequence[Score], seed: int) -> ChoiceShares:
    column = {name: place for place, name in enumerate(NORMALISED_CURVE)}
    curves: dict[tuple[str, str, int], list[float]] = {}
    for one in scores:
        if one.metric in column:
            key = (one.sample, one.word, one.occurrence)
            curve = curves.setdefault(key, [math.nan] * len(column))
            curve[column[one.metric]] = one.value
    words = sorted(curves)
    array = np.array([curves[word] for word in words])
    return ChoiceShares.resampled([sample for sample, _, _ in words], array, seed=seed)


def has_headline_word(scores: Iterable[Score]) -> bool:
    """Return whether a headline word is among what was scored, so that there is something to choose
    on: a cell without one holds nothing but what its maps cost."""
    return any(score.metric == NORMALISED_CURVE[0] for score in scores)


def ceiling_thresholds(items: Iterable[DatasetItem]) -> Thresholds:
    """The thresholds of the ceiling, chosen as any row's are."""
    curves: dict[str, list[float]] = {}
    for item in items:
        for scored in item.words:
            if scored.headline:
                for name, value in threshold_curve(ceiling_map(item, scored), scored.mask).items():
                    curves.setdefault(name, []).append(value)
    return _best(curves, "any method")[0]


def _best(curves: Mapping[str, Sequence[float]], who: str) -> tuple[Thresholds, float]:
    if not curves.get(NORMALISED_CURVE[0]):
        raise ValueError(nothing_to_choose_on(f"the threshold of {who}"))
    means = [float(np.mean(curves[name])) for name in NORMALISED_CURVE]
    absolute = [float(np.mean(curves[name])) for name in ABSOLUTE_CURVE]
    thresholds = Thresholds(
        THRESHOLD_GRID[int(np.argmax(means))], ABSOLUTE_GRID[int(np.argmax(absolute))]
    )
    return thresholds, max(means)


def nothing_to_choose_on(what: str) -> str:
    """Return the message for rows where no calibration image has a headline word."""
    return (
        f"no word to choose {what} on: no calibration image shows two of the objects that were "
        "asked for; take more calibration images, or a model that follows such prompts better"
    )
