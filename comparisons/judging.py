"""Scores one image with one row's maps: a cell, read where it is finished and made where not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from wordlight.attribution.maps import AttributionMaps, WordMap
from wordlight.comparisons.cells import FORWARD_EQUIVALENTS, SECONDS, CellFolder, Score
from wordlight.comparisons.datasets import DatasetItem, Mask, ScoredWord
from wordlight.comparisons.entries import Entry, Variant
from wordlight.comparisons.segmentation import score, threshold_curve

Measure = Callable[[WordMap, Mask], dict[str, float]]


def calibration_cell(
    folder: CellFolder, item: DatasetItem, entry: Entry, variant: Variant
) -> list[Score]:
    """The IoU at every threshold, of the headline words."""
    name = entry.name if entry.shuffled else variant.cell
    return _cell(folder, item, entry, variant, name, threshold_curve, headline_only=True)


def judged_cell(
    folder: CellFolder, item: DatasetItem, entry: Entry, variant: Variant, threshold: float
) -> list[Score]:
    """Every metric of every word, and the cost."""

    def measure(word_map: WordMap, mask: Mask) -> dict[str, float]:
        return score(word_map, mask, threshold)

    return _cell(folder, item, entry, variant, entry.name, measure, headline_only=False)


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
    *,
    headline_only: bool,
) -> list[Score]:
    finished = folder.read(item.sample, name)
    if finished is not None:
        return finished
    maps = variant.source.maps(item, folder.maps_path(item.sample, variant.cell))
    cell = (folder.framework, item.sample, name)
    scores = []
    for scored, word_map in _pairs(item, maps, shuffled=entry.shuffled):
        if headline_only and not scored.headline:
            continue
        for metric, value in measure(word_map, scored.mask).items():
            word = scored.word
            scores.append(Score(*cell, word.text, word.occurrence, metric, value))
    for metric, value in _cost(maps).items():
        scores.append(Score(*cell, "", -1, metric, value))
    folder.write(item.sample, name, scores)
    return scores


def _pairs(
    item: DatasetItem, maps: AttributionMaps, *, shuffled: bool
) -> Iterator[tuple[ScoredWord, WordMap]]:
    for scored in item.words:
        shown = partner(item, scored) if shuffled else scored
        if shown is not None:
            yield scored, maps.at(shown.word)


def _cost(maps: AttributionMaps) -> dict[str, float]:
    spent = maps.provenance
    if not spent.forward_equivalents and not spent.seconds:
        return {}  # Maps from elsewhere that don't say what they cost.
    return {
        FORWARD_EQUIVALENTS: float(spent.forward_equivalents),
        SECONDS: float(spent.seconds),
    }
