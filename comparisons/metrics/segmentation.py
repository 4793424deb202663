"""The metrics of segmentation: how well a word's map finds the mask of what the word names."""

from __future__ import annotations

from functools import partial

from wordlight.attribution.maps import WordMap
from wordlight.comparisons.metrics.assignment import argmax_ious, matched_ious_of
from wordlight.comparisons.metrics.judged import JudgedWord
from wordlight.comparisons.metrics.metric import HEADLINE_TABLE, NO_TABLE, Metric, Need, share
from wordlight.comparisons.metrics.overlap import iou_at, iou_of_word
from wordlight.comparisons.metrics.pointing import energy_inside, pointing_game
from wordlight.comparisons.metrics.ranking import auroc, average_precision
from wordlight.comparisons.metrics.shown_map import Mask, ShownMap

#: The thresholds at which the paper of origin reports (Tang et al., arXiv 2210.04885).
PAPER_THRESHOLDS = (0.3, 0.4, 0.5)
#: Among these the calibration split chooses.
THRESHOLD_GRID = tuple(round(0.05 * k, 2) for k in range(1, 20))
#: And among these the absolute threshold: maps of all methods' units, each a quarter above the
#: last.
ABSOLUTE_GRID = tuple(float(f"{1e-6 * 1.25**k:.3g}") for k in range(96))

#: The names of ``threshold_curve``, in the order of the grids.
NORMALISED_CURVE = tuple(f"miou@{t:g}" for t in THRESHOLD_GRID)
ABSOLUTE_CURVE = tuple(f"miou@absolute-{t:g}" for t in ABSOLUTE_GRID)

BEST = "miou@best"
ABSOLUTE = "miou@absolute"
ARGMAX = "miou@argmax"
MATCHED = "miou@matched"
AVERAGE_PRECISION = "ap"
AUROC = "auroc"
POINTING_GAME = "pointing-game"
ENERGY = "ebpg"

_CHOSEN: frozenset[Need] = frozenset({"masks", "thresholds"})
#: A metric of this group, over words, by which a constant map scores the mask's share of the image.
_metric = partial(Metric, over="word", constant=share, groups=("segmentation",))


def _pointing_game(word: JudgedWord) -> float:
    return pointing_game(word.shown.raw, word.mask)


def _energy(word: JudgedWord) -> float:
    return energy_inside(word.shown.energy, word.mask)


def _average_precision(word: JudgedWord) -> float:
    return average_precision(word.shown.raw, word.mask)


def _auroc(word: JudgedWord) -> float | None:
    return auroc(word.shown.raw, word.mask)


def _of_paper(threshold: float) -> Metric:
    return _metric(
        name=f"miou@{threshold:g}",
        score=partial(iou_of_word, threshold=threshold),
        label=f"mIoU@{threshold:g}",
        table=HEADLINE_TABLE if threshold == 0.4 else "more",
    )


def _of_maximum(threshold: float) -> Metric:
    return _metric(
        name=f"miou@max-{threshold:g}",
        score=partial(iou_of_word, threshold=threshold, scale="max"),
        label=f"mIoU@{threshold:g} max",
        table="more" if threshold == 0.4 else NO_TABLE,
        notes=("mIoU@0.4 max: cut at a share of the map's maximum",) if threshold == 0.4 else (),
    )


#: In the order of tables.
METRICS = (
    _metric(
        name=BEST,
        score=iou_of_word,
        label="mIoU@best",
        needs=_CHOSEN,
        table=HEADLINE_TABLE,
        interval=True,
        ranked=True,
    ),
    *map(_of_paper, PAPER_THRESHOLDS),
    _metric(
        name=POINTING_GAME,
        score=_pointing_game,
        label="pointing game",
        table=HEADLINE_TABLE,
        interval=True,
    ),
    _metric(
        name=AVERAGE_PRECISION,
        score=_average_precision,
        label="AP",
        table=HEADLINE_TABLE,
    ),
    *map(_of_maximum, PAPER_THRESHOLDS),
    _metric(
        name=ABSOLUTE,
        score=partial(iou_of_word, scale="absolute"),
        label="mIoU@abs",
        needs=_CHOSEN,
        notes=("mIoU@abs: at a value of the map as it is, chosen like the threshold",),
    ),
    _metric(
        name=ARGMAX,
        score=argmax_ious,
        over="words",
        label="argmax mIoU",
        needs=_CHOSEN,
        notes=("argmax: a pixel goes to the word that is highest there",),
    ),
    _metric(
        name=MATCHED,
        score=matched_ious_of,
        over="words",
        label="matched mIoU",
        needs=_CHOSEN,
        notes=("matched: objects and maps matched one to one, whichever word it is",),
    ),
    _metric(
        name=AUROC,
        score=_auroc,
        label="AUROC",
        # Of a mask that is the whole image nothing lies outside.
        constant=lambda mask: None if mask.all() else 0.5,
    ),
    _metric(name=ENERGY, score=_energy, label="EBPG"),
)


def threshold_curve(word_map: WordMap, mask: Mask) -> dict[str, float]:
    """The IoU at every threshold of both grids, by name: the calibration split chooses."""
    shown = ShownMap(word_map)
    return {
        name: value
        for names, values in (
            (NORMALISED_CURVE, iou_at(shown.normalised, mask, THRESHOLD_GRID)),
            (ABSOLUTE_CURVE, iou_at(shown.on("absolute"), mask, ABSOLUTE_GRID)),
        )
        for name, value in zip(names, values, strict=True)
    }
