"""What is chosen before the test split is looked at: thresholds, and options such as a width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wordlight.comparisons.ceiling import ceiling_map
from wordlight.comparisons.cells import Score
from wordlight.comparisons.datasets import DatasetItem
from wordlight.comparisons.entries import Entry, Variant
from wordlight.comparisons.segmentation import THRESHOLD_GRID, threshold_curve


@dataclass(frozen=True, eq=False)
class Choice:
    """What the calibration split chose for a row: ``miou`` is what it reached there."""

    variant: Variant
    threshold: float
    miou: float


def choose(entry: Entry, scores: Sequence[Sequence[Score]]) -> Choice:
    """The variant and threshold with the highest mIoU over the calibration split's headline words.

    The first of equals, so a constant map gets the lowest threshold.

    Args:
        entry: the row.
        scores: of each of its variants, over all calibration images.

    Raises:
        ValueError: no headline word was scored.
    """
    best: Choice | None = None
    for variant, of_variant in zip(entry.variants, scores, strict=True):
        curves: dict[str, list[float]] = {f"miou@{t:g}": [] for t in THRESHOLD_GRID}
        for one in of_variant:
            if one.metric in curves:
                curves[one.metric].append(one.value)
        threshold, miou = _highest(list(curves.values()), entry.label)
        if best is None or miou > best.miou:
            best = Choice(variant, threshold, miou)
    if best is None:
        raise ValueError(f"{entry.label} has no variant to choose from")
    return best


def ceiling_threshold(items: Sequence[DatasetItem]) -> float:
    """The threshold of the ceiling, chosen as any row's is."""
    curves: list[list[float]] = [[] for _ in THRESHOLD_GRID]
    for item in items:
        for scored in item.words:
            if scored.headline:
                curve = threshold_curve(ceiling_map(item, scored), scored.mask)
                for values, value in zip(curves, curve.values(), strict=True):
                    values.append(value)
    return _highest(curves, "any method")[0]


def _highest(curves: Sequence[Sequence[float]], who: str) -> tuple[float, float]:
    if not curves[0]:
        raise ValueError(
            f"no word to choose the threshold of {who} on: no calibration image shows two of the "
            "objects that were asked for; take more calibration images, or a model that follows "
            "such prompts better"
        )
    means = [float(np.mean(values)) for values in curves]
    place = int(np.argmax(means))
    return THRESHOLD_GRID[place], means[place]
