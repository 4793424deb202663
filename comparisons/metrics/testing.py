"""Conformance of metrics: what the runner, the tables and the statistics rely on."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import xarray as xr

from wordlight.attribution.maps import AttributionMaps, Provenance, WordMap
from wordlight.attribution.methods.occlusion import Occlusion
from wordlight.attribution.methods.regeneration import Regeneration
from wordlight.attribution.testing.model import ToyModel
from wordlight.attribution.words import PromptWords, Word
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.datasets.item import DatasetItem, Mask, ScoredWord
from wordlight.comparisons.metrics.judged import JudgedImage, ModelWithoutWords, Thresholds
from wordlight.comparisons.metrics.metric import Metric

_PROMPT = "a red circle and a blue square"
_STEPS = 2
#: Rounding of values that are the same on paper.
_CLOSE = 1e-6


def judged(
    maps: Sequence[npt.ArrayLike],
    masks: Sequence[npt.ArrayLike],
    *,
    thresholds: Thresholds | None = None,
    signed: bool = False,
    headline: bool = True,
) -> JudgedImage:
    """An image of given maps and masks, for trying a metric that asks for these alone.

    Args:
        maps: of the words, ``(y, x)`` each.
        masks: of the words, ``(height, width)`` each, all of one size.
        thresholds: 0.5 on both scales for None.
        signed: whether values below zero speak against the word.
        headline: whether they are headline words.
    """
    size = np.shape(masks[0]) if len(masks) else (1, 1)
    image = np.zeros((size[0], size[1], 3), np.uint8)
    words, found = [], {}
    for place, (values, mask) in enumerate(zip(maps, masks, strict=True)):
        word = Word(f"word-{place}", place, place + 1, (place + 1,))
        scored = ScoredWord(word, "object", place, np.asarray(mask, bool), headline)
        words.append(scored)
        found[id(scored)] = WordMap(word, np.asarray(values, np.float32), signed, image)
    return JudgedImage(
        DatasetItem("given", "test", replace(_any_trajectory(), image=image), tuple(words), ()),
        None,
        thresholds=thresholds or Thresholds(0.5, 0.5),
        map_of=lambda scored: found[id(scored)],
    )


@cache
def _any_trajectory() -> Trajectory:
    return ToyModel().sample(_PROMPT, steps=1)


def check_metric(metric: Metric) -> None:
    """Check that a metric is one: in the manner of scikit-learn's ``check_estimator``.

    It is asked about images of a small model in numpy, whose words have masks, with maps of several
    kinds.

    Raises:
        AssertionError: the first thing that is wrong, and what would be right.
    """
    _describes_itself(metric)
    if metric.over == "cost":
        spent = Provenance("it", forward_equivalents=3, seconds=0.5, peak_bytes=7)
        _check_values(metric, [metric.score(spent, **metric.options)])
        return
    specimen = _Specimen()
    for kind, maps in specimen.maps().items():
        found = values(metric, specimen.judged(maps))
        _check_values(metric, found)
        again = values(metric, specimen.judged(maps))
        _expect(found == again, f"{metric.name} gives other values of the same maps ({kind})")
    _check_constant(metric, specimen)
    if metric.needs <= {"masks", "thresholds"}:
        _check_direction(metric, specimen)
        _check_order_of_words(metric, specimen)


def values(metric: Metric, image: JudgedImage) -> list[float | None]:
    """A metric's values of an image: one a word, or one."""
    if metric.over == "image":
        return [metric.score(image, **metric.options)]
    words = image.words if metric.over == "word" else image.headline
    if metric.over == "words":
        found = list(metric.score(words, **metric.options))
        _expect(
            len(found) == len(words),
            f"{metric.name} gives {len(found)} values of {len(words)} words",
        )
        return found
    return [metric.score(word, **metric.options) for word in words]


def _describes_itself(metric: Metric) -> None:
    _expect(
        re.fullmatch(r"[a-z0-9][a-z0-9.@-]*", metric.name) is not None,
        f"it is called {metric.name!r}: small letters, digits and . @ - only",
    )
    _expect(metric.digits >= 0 and metric.unit > 0, "its digits and unit can't be printed")
    _expect(metric.least < metric.most, "its least value isn't below its greatest")
    _expect(
        "masks" in metric.needs or metric.over in ("image", "cost"),
        f"it is over {metric.over!r}, and so it needs masks",
    )


def _check_values(metric: Metric, found: Sequence[float | None]) -> None:
    for value in found:
        if value is None:
            continue
        _expect(
            isinstance(value, float | np.floating) and math.isfinite(value),
            f"{metric.name} gives {value!r}: a finite number, or None where it isn't defined",
        )
        _expect(
            metric.least - _CLOSE <= value <= metric.most + _CLOSE,
            f"{metric.name} gives {value}, and says that it lies in {metric.least}..{metric.most}",
        )


def _check_constant(metric: Metric, specimen: _Specimen) -> None:
    image = specimen.judged(specimen.maps()["constant"])
    found = values(metric, image)
    masks = [word.mask for word in image.words] if metric.over != "image" else [None]
    for value, mask in zip(found, masks, strict=True):
        wanted = metric.of_constant(np.ones((1, 1), bool) if mask is None else mask)
        if wanted is None or value is None:
            continue
        _expect(
            math.isclose(value, wanted, abs_tol=_CLOSE),
            f"{metric.name} gives {value} of a map that is the same everywhere, and says "
            f"constant={wanted}",
        )


def _check_direction(metric: Metric, specimen: _Specimen) -> None:
    right, wrong = (
        values(metric, judged(list(maps), specimen.masks))
        for maps in (
            [mask.astype(float) for mask in specimen.masks],
            [1.0 - mask for mask in specimen.masks],
        )
    )
    for one, other in zip(right, wrong, strict=True):
        if one is None or other is None:
            continue
        better = one >= other if metric.higher_is_better else one <= other
        _expect(
            better,
            f"{metric.name} finds a mask's complement better than the mask ({other} and {one}): "
            f"is higher_is_better={metric.higher_is_better} right?",
        )


def _check_order_of_words(metric: Metric, specimen: _Specimen) -> None:
    maps = [np.random.default_rng(k).random(mask.shape) for k, mask in enumerate(specimen.masks)]
    found = values(metric, judged(maps, specimen.masks))
    turned = values(metric, judged(maps[::-1], specimen.masks[::-1]))
    _expect(
        found == turned[::-1], f"{metric.name} gives other values when words come in another order"
    )


class _Specimen:
    """An image of the small model, two of whose words have masks."""

    def __init__(self) -> None:
        self.model = ToyModel()
        self.trajectory = self.model.sample(_PROMPT, seed=3, steps=3)
        height, width = self.trajectory.image.shape[:2]
        left, right = (np.zeros((height, width), bool) for _ in range(2))
        left[height // 4 : height // 2, : width // 3] = True
        right[height // 3 :, width // 2 : width - 2] = True
        self.masks: list[Mask] = [left, right]
        words = PromptWords.of(self.trajectory.tokens)
        self.item = DatasetItem(
            "specimen",
            "test",
            self.trajectory,
            tuple(
                ScoredWord(words.find(text), "shape-noun", place, mask, headline=True)
                for place, (text, mask) in enumerate(
                    zip(("circle", "square"), self.masks, strict=True)
                )
            ),
            (),
        )
        self._model = ModelWithoutWords(
            self.model, self.item, steps=_STEPS, seed=0, changes=self._changes
        )

    def _changes(self) -> AttributionMaps:
        return Regeneration(self.model).attribute(self.trajectory)

    def maps(self) -> dict[str, AttributionMaps]:
        """Maps of several kinds, all as a method that can be asked again would make them."""
        own = Occlusion(self.model, steps=_STEPS).attribute(self.trajectory)
        rng = np.random.default_rng(0)
        return {
            "a method's": own,
            "random": _like(own, lambda shape: rng.random(shape)),
            "constant": _like(own, np.ones),
            "zero": _like(own, np.zeros),
        }

    def judged(self, maps: AttributionMaps) -> JudgedImage:
        """The image with some maps."""
        return JudgedImage(
            self.item,
            maps,
            thresholds=Thresholds(0.5, 0.5),
            method=_Fixed(self.model, steps=_STEPS, maps=None if maps.signed else maps),
            model=self._model,
        )


class _Fixed(Occlusion):
    """Answers with given maps whatever it is asked; without such it is the method itself."""

    maps: AttributionMaps | None = None

    def attribute(self, trajectory: Trajectory) -> AttributionMaps:  # type: ignore[override]
        if self.maps is not None:
            return self.maps
        return Occlusion(self.backend, steps=self.steps).attribute(trajectory)


def _like(
    maps: AttributionMaps, make: Callable[[tuple[int, ...]], npt.NDArray[np.float64]]
) -> AttributionMaps:
    values = make(maps.data.values.shape).astype(np.float32)
    return AttributionMaps(
        xr.DataArray(values, dims=maps.data.dims),
        maps.players,
        maps.tokens,
        maps.image,
        merge="mean",
        signed=False,
        provenance=maps.provenance,
    )


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
