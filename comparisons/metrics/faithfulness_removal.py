"""Word-removal agreement: does a map lie where the image changes when it is drawn without the word?

What changes, at the same noise, is what the method ``regeneration`` shows: it is this metric's own
truth, and no method to be ranked by it.
"""

from __future__ import annotations

from wordlight.attribution.maps import WordMap
from wordlight.attribution.methods.regeneration import Regeneration
from wordlight.comparisons.metrics.judged import JudgedWord
from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.metrics.overlap import iou
from wordlight.comparisons.metrics.rank_correlation import rank_correlation
from wordlight.comparisons.metrics.shown_map import MaskMap, ShownMap


def removal_rank(word_map: WordMap, change: WordMap) -> float | None:
    """Spearman's rank correlation of a map with the change, over the latent grid, -1 to 1; a
    constant map has 0. None where nothing changes."""
    if _is_constant(change):
        return None
    return rank_correlation(word_map.values, change.values)


def removal_iou(word_map: WordMap, change: WordMap, *, threshold: float = 0.4) -> float | None:
    """The IoU of a map's mask and the change's, both cut at the same threshold between their least
    and greatest values, at the image's size. None where nothing changes."""
    if _is_constant(change):
        return None
    return iou(ShownMap(word_map).mask(threshold), ShownMap(change).mask(threshold))


def _is_constant(change: WordMap) -> bool:
    return bool(change.values.min() == change.values.max())


def _rank_of_word(word: JudgedWord) -> float | None:
    # A segmenter's mask isn't on the latent grid.
    return None if isinstance(word.map, MaskMap) else removal_rank(word.map, word.change)


def _iou_of_word(word: JudgedWord, *, threshold: float = 0.4) -> float | None:
    return removal_iou(word.map, word.change, threshold=threshold)


METRICS = tuple(
    Metric(
        name=name,
        score=score,
        over="word",
        needs=frozenset({"masks", "regeneration"}),
        constant=constant,
        least=least,
        groups=("faithfulness", "removal"),
        table="removal",
        ranked=True,
        every_word=True,
        reference=Regeneration.name,
        notes=("removal is over every word that has a mask",),
    )
    for name, score, constant, least in (
        ("removal-rank", _rank_of_word, 0.0, -1.0),
        ("removal-iou", _iou_of_word, None, 0.0),
    )
)
