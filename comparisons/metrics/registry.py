"""The segmentation metrics of a comparison, by the names of results and tables."""

from __future__ import annotations

from dataclasses import dataclass

from wordlight.attribution.maps import WordMap
from wordlight.comparisons.metrics.assignment import ArgmaxIoU, ImageMetric, MatchedIoU
from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.metrics.overlap import IoU, iou_at
from wordlight.comparisons.metrics.pointing import EnergyPointingGame, PointingGame
from wordlight.comparisons.metrics.ranking import Auroc, AveragePrecision
from wordlight.comparisons.metrics.shown_map import Mask, ShownMap
from wordlight.comparisons.metrics.word_metric import WordMetric

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


@dataclass(frozen=True)
class Thresholds:
    """What the calibration split chose for a row: where its maps are cut, normalised and as they
    are."""

    normalised: float
    absolute: float


def word_metrics(thresholds: Thresholds) -> list[WordMetric]:
    """A row's metrics of one word at a time, new ones."""
    return [
        *(IoU(f"miou@{t:g}", t) for t in PAPER_THRESHOLDS),
        *(IoU(f"miou@max-{t:g}", t, "max") for t in PAPER_THRESHOLDS),
        IoU(BEST, thresholds.normalised),
        IoU(ABSOLUTE, thresholds.absolute, "absolute"),
        PointingGame(POINTING_GAME),
        EnergyPointingGame(ENERGY),
        AveragePrecision(AVERAGE_PRECISION),
        Auroc(AUROC),
    ]


def image_metrics(thresholds: Thresholds) -> list[ImageMetric]:
    """A row's metrics of all headline words of an image, new ones."""
    return [ArgmaxIoU(ARGMAX, thresholds.normalised), MatchedIoU(MATCHED, thresholds.normalised)]


def all_metrics(thresholds: Thresholds) -> list[Metric]:
    """Both kinds."""
    return [*word_metrics(thresholds), *image_metrics(thresholds)]


#: Every metric, by name.
METRICS = tuple(metric.name for metric in all_metrics(Thresholds(1.0, 1.0)))


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
