"""Scores one image with one row's maps: a cell, read where it is finished and made where not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple

import numpy as np

from wordlight.attribution.maps import AttributionMaps, WordMap
from wordlight.comparisons.datasets import DatasetItem, ScoredWord
from wordlight.comparisons.metrics.cost import Cost, ForwardEquivalents, PeakBytes, Seconds
from wordlight.comparisons.metrics.registry import (
    Thresholds,
    image_metrics,
    threshold_curve,
    word_metrics,
)
from wordlight.comparisons.metrics.shown_map import ShownMap
from wordlight.comparisons.rows.entries import Entry, Variant
from wordlight.comparisons.store.cells import (
    FORWARD_EQUIVALENTS,
    PEAK_BYTES,
    SECONDS,
    CellFolder,
    Score,
)

#: The words of an image, each with the map that it is scored on.
Pairs = Sequence[tuple[ScoredWord, WordMap]]
#: Scores them: word, metric, value.
Measure = Callable[[Pairs], Iterable[tuple[ScoredWord, str, float]]]


def calibration_cell(
    folder: CellFolder, item: DatasetItem, entry: Entry, variant: Variant
) -> list[Score]:
    """The IoU at every threshold, of the headline words."""
    name = entry.name if entry.shuffled else variant.cell

    def measure(pairs: Pairs) -> Iterator[tuple[ScoredWord, str, float]]:
        for scored, word_map in pairs:
            if scored.headline:
                for metric, value in threshold_curve(word_map, scored.mask).items():
                    yield scored, metric, value

    return _cell(folder, item, entry, variant, name, measure)


def judged_cell(
    folder: CellFolder, item: DatasetItem, entry: Entry, variant: Variant, thresholds: Thresholds
) -> list[Score]:
    """Every metric of every word, and the cost."""

    def measure(pairs: Pairs) -> Iterator[tuple[ScoredWord, str, float]]:
        return judge(pairs, thresholds)

    return _cell(
        folder, item, entry, variant, entry.name, measure, choice_hash(variant, thresholds)
    )


def choice_hash(variant: Variant, thresholds: Thresholds) -> str:
    """What tells a test cell from one that was judged at what had been chosen before: cells of the
    calibration split that failed are tried again, and another choice may come of them."""
    text = json.dumps([variant.cell, *astuple(thresholds)])
    return hashlib.sha256(text.encode()).hexdigest()


def judge(pairs: Pairs, thresholds: Thresholds) -> Iterator[tuple[ScoredWord, str, float]]:
    """Every score of an image's words: of each by itself, and of the headline words together.

    Args:
        pairs: the words, each with the map that it is scored on.
        thresholds: the row's.
    """
    shown = [(scored, ShownMap(word_map)) for scored, word_map in pairs]
    of_words = word_metrics(thresholds)
    for scored, one in shown:
        for metric in of_words:
            value = metric.score(one, scored.mask)
            if value is not None:
                yield scored, metric.name, value
    headline = [(scored, one) for scored, one in shown if scored.headline]
    maps, masks = [one for _, one in headline], [scored.mask for scored, _ in headline]
    for together in image_metrics(thresholds):
        for (scored, _), value in zip(headline, together.scores(maps, masks), strict=True):
            yield scored, together.name, value


def partner(item: DatasetItem, scored: ScoredWord) -> ScoredWord | None:
    """The word whose map the shuffled-word control takes for this one, or None.

    A word of another object, with a mask that shares no pixel with this word's; of the same
    category where there is one; among those the next in the prompt, from the start again.
    """
    others = [
        other
        for other in item.words
        if other.referent >= 0
        and other.referent != scored.referent
        and not np.logical_and(other.mask, scored.mask).any()
    ]
    if not others:
        return None
    return min(
        others,
        key=lambda other: (
            other.category != scored.category,
            other.word.start < scored.word.start,
            other.word.start,
        ),
    )


def _cell(
    folder: CellFolder,
    item: DatasetItem,
    entry: Entry,
    variant: Variant,
    name: str,
    measure: Measure,
    choice: str = "",
) -> list[Score]:
    finished = folder.read(item.sample, name, choice)
    if finished is not None:
        return finished
    maps = variant.source.maps(item, folder.maps_path(item.sample, variant.cell))
    cell = (folder.framework, item.sample, name)
    scores = []
    for scored, metric, value in measure(list(_pairs(item, maps, shuffled=entry.shuffled))):
        word = scored.word
        scores.append(Score(*cell, word.text, word.occurrence, metric, value))
    for metric, value in cost_of(maps).items():
        scores.append(Score(*cell, "", -1, metric, value))
    folder.write(item.sample, name, scores, choice)
    return scores


def _pairs(
    item: DatasetItem, maps: AttributionMaps, *, shuffled: bool
) -> Iterator[tuple[ScoredWord, WordMap]]:
    for scored in item.words:
        shown = partner(item, scored) if shuffled else scored
        if shown is not None:
            yield scored, maps.at(shown.word)


def cost_of(maps: AttributionMaps) -> dict[str, float]:
    """What maps cost, by the metrics of cells; without what isn't known."""
    values = {metric.name: metric.cost(maps.provenance) for metric in cost_metrics()}
    return {name: value for name, value in values.items() if value is not None}


def cost_metrics() -> list[Cost]:
    """The metrics of cost, new ones."""
    return [ForwardEquivalents(FORWARD_EQUIVALENTS), Seconds(SECONDS), PeakBytes(PEAK_BYTES)]
