"""Scores one image with one row's maps: a cell, made where it isn't there, and extended by the
metrics that it lacks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple

from wordlight.attribution.maps import AttributionMaps
from wordlight.comparisons.datasets import DatasetItem, ScoredWord
from wordlight.comparisons.metrics import cost, registry
from wordlight.comparisons.metrics.judged import (
    JudgedImage,
    JudgedWord,
    ModelWithoutWords,
    Thresholds,
)
from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.metrics.overlap import iou_at
from wordlight.comparisons.metrics.segmentation import (
    ABSOLUTE_GRID,
    THRESHOLD_GRID,
    threshold_curve,
)
from wordlight.comparisons.rows.row import Row, Variant
from wordlight.comparisons.store.cells import Cell, CellFolder, Score

#: What a cell says that it holds, beside its metrics: the IoU at every threshold.
CURVE = {
    "threshold-curve": hashlib.sha256(
        json.dumps([THRESHOLD_GRID, ABSOLUTE_GRID]).encode()
    ).hexdigest()
}
#: A value: the word that it is of, None for the whole image, and the metric's name.
Value = tuple[ScoredWord | None, str, float]


def identities(metrics: Iterable[Metric]) -> dict[str, str]:
    """Return what tells metrics' scores from others', by metric, those of cost among them."""
    return {one.name: registry.identity(one) for one in (*metrics, *cost.METRICS)}


def choice_of(variant: Variant, thresholds: Thresholds | None) -> tuple[str | float, ...]:
    """Return a digest that tells a test cell from one that was judged at what had been chosen
    before: cells of the calibration split that failed are tried again, and another choice may come
    of them."""
    return (variant.cell, *(astuple(thresholds) if thresholds is not None else ()))


def still_holds(cell: Cell, choice: Sequence[str | float]) -> bool:
    """Return whether a cell was judged at this choice, as far as both of them chose."""
    both = min(len(cell.choice), len(choice))
    return cell.choice[:both] == tuple(choice[:both])


def calibration_cell(folder: CellFolder, item: DatasetItem, row: Row, variant: Variant) -> None:
    """Write the IoU at every threshold, of the headline words, and the cost."""
    name = row.name if row.shuffled else variant.cell
    maps = variant.source.maps(item, folder.maps_path(item.sample, variant.cell))
    judged = JudgedImage(item, maps, shuffled=row.shuffled)
    values: list[Value] = [
        (word.scored, metric, value)
        for word in judged.headline
        for metric, value in threshold_curve(word.map, word.mask).items()
    ]
    scores = _scores(folder, item, name, [*values, *_costs(maps)])
    folder.write(item.sample, name, Cell(scores, metrics={**CURVE, **identities(())}))


def judged_cell(
    folder: CellFolder,
    item: DatasetItem,
    row: Row,
    variant: Variant,
    metrics: Sequence[Metric],
    *,
    thresholds: Thresholds | None = None,
    model: ModelWithoutWords | None = None,
    held: Cell | None = None,
) -> None:
    """Write the scores by these metrics, and the cost; or add them to what is held.

    Where a threshold was chosen, the IoU at the others is kept too: intervals need them.

    Args:
        folder: of the cells.
        item: the image.
        row, variant: the source of the maps.
        metrics: those that ``held`` lacks, or all.
        thresholds: the row's, where some were chosen.
        model: for metrics that ask the model.
        held: the cell as it is; its other scores stay as they are.
    """
    maps = variant.source.maps(item, folder.maps_path(item.sample, variant.cell))
    judged = JudgedImage(
        item,
        maps,
        shuffled=row.shuffled,
        thresholds=thresholds,
        method=row.method_of(variant),
        model=model,
    )
    scores = _scores(folder, item, row.name, scored(judged, metrics))
    choice = choice_of(variant, thresholds)
    made = {one.name: registry.identity(one) for one in metrics}
    curves = {}
    if thresholds is not None:
        made |= CURVE
        curves = {_named(word): _curve(word) for word in judged.words}
    known = held or Cell(())
    # Of an earlier release a cell may lack one of these.
    costs = [one for one in cost.METRICS if one.name not in known.metrics]
    made |= {one.name: registry.identity(one) for one in costs}
    kept = (score for score in known.scores if score.metric not in made)
    spent = _scores(folder, item, row.name, _costs(maps, costs))
    cell = Cell(
        (*kept, *scores, *spent),
        max(choice, known.choice, key=len),
        {**known.metrics, **made},
        curves or known.curves,
    )
    folder.write(item.sample, row.name, cell)


def _named(word: JudgedWord) -> tuple[str, int]:
    return word.scored.word.text, word.scored.word.occurrence


def _curve(word: JudgedWord) -> tuple[float, ...]:
    return iou_at(word.shown.normalised, word.mask, THRESHOLD_GRID)


def scored(judged: JudgedImage, metrics: Iterable[Metric]) -> Iterator[Value]:
    """Every value of an image that is defined.

    Raises ValueError for a metric that doesn't give one value a word, or no number.
    """
    for metric in metrics:
        for word, value in _values(judged, metric):
            if value is not None:
                yield word, metric.name, float(value)


def _values(
    judged: JudgedImage, metric: Metric
) -> Iterator[tuple[ScoredWord | None, float | None]]:
    options = metric.options
    if metric.over == "image":
        yield None, metric.score(judged, **options)
    elif metric.over == "words":
        words = judged.headline
        found = list(metric.score(words, **options)) if words else []
        if len(found) != len(words):
            raise ValueError(f"{metric.name} gives {len(found)} values of {len(words)} words")
        yield from ((word.scored, value) for word, value in zip(words, found, strict=True))
    elif metric.over != "cost":
        for word in judged.headline if metric.over == "headline" else judged.words:
            yield word.scored, metric.score(word, **options)


def _costs(maps: AttributionMaps, metrics: Iterable[Metric] = cost.METRICS) -> list[Value]:
    values = ((metric.name, metric.score(maps.provenance)) for metric in metrics)
    return [(None, name, value) for name, value in values if value is not None]


def _scores(
    folder: CellFolder, item: DatasetItem, name: str, values: Iterable[Value]
) -> tuple[Score, ...]:
    return tuple(
        Score(
            folder.framework,
            item.sample,
            name,
            "" if one is None else one.word.text,
            -1 if one is None else one.word.occurrence,
            metric,
            value,
        )
        for one, metric, value in values
    )
