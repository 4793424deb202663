"""Which cross-attention layer, at which denoising step, finds the objects best?"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wordlight.attribution.daam import DAAM
from wordlight.attribution.maps import AttributionMaps
from wordlight.backends.arrays_file import write_atomically
from wordlight.backends.backend import Backend
from wordlight.comparisons.datasets import DatasetItem
from wordlight.comparisons.generated_scenes import GeneratedScenes
from wordlight.comparisons.metrics.overlap import iou_at
from wordlight.comparisons.metrics.shown_map import ShownMap
from wordlight.comparisons.segmentation import THRESHOLD_GRID
from wordlight.comparisons.statistics import Estimate, mean_over_words
from wordlight.comparisons.studies.results import estimate_data

#: A layer's name and a step's number; None for all of them, as DAAM averages them.
Place = tuple[str | None, int | None]


@dataclass(frozen=True)
class PlaceScore:
    """DAAM of one layer at one step: ``threshold`` and ``tuning`` (the mIoU there) are of the
    calibration images, ``miou`` of the test images."""

    layer: str | None
    step: int | None
    threshold: float
    tuning: float
    miou: Estimate


@dataclass(frozen=True)
class LayersStudy:
    """Every layer at every step, and all of them together."""

    model: str
    calibration: int
    images: int
    seed: int
    timesteps: tuple[float, ...]
    scores: tuple[PlaceScore, ...]

    def at(self, layer: str | None, step: int | None) -> PlaceScore:
        """One of the scores."""
        return next(s for s in self.scores if (s.layer, s.step) == (layer, step))

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers' names, from the input to the output."""
        return tuple(dict.fromkeys(s.layer for s in self.scores if s.layer is not None))

    @property
    def best(self) -> PlaceScore:
        """The best place as the calibration images tell it, with what it reaches on the others."""
        return max(self.scores, key=lambda score: score.tuning)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            **{name: getattr(self, name) for name in ("model", "calibration", "images", "seed")},
            "timesteps": list(self.timesteps),
            "scores": [_data(score) for score in self.scores],
            "best": _data(self.best),
        }


def _data(score: PlaceScore) -> dict[str, Any]:
    return {
        **{name: getattr(score, name) for name in ("layer", "step", "threshold", "tuning")},
        "miou": estimate_data(score.miou),
    }


def study_layers(
    backend: Backend,
    folder: Path,
    *,
    calibration: int,
    n: int,
    seed: int = 0,
    on_image: Callable[[int], object] = lambda count: None,
) -> LayersStudy:
    """DAAM's mIoU with only one layer, only one step, or both.

    The words are a comparison's headline words. Each place has the threshold of its own that is
    best on the calibration split; so is the best place chosen, and the test split only tells what
    it reaches.

    Args:
        backend: the model; it must draw what prompts of ``scenes`` ask for.
        folder: where the images are kept, or found again.
        calibration, n: how many images.
        seed: of the images' noise.
        on_image: called with how many images were done.

    Raises:
        ValueError: no image with a headline word, or bad numbers.
        MissingCapabilityError: a model whose attention can't be had.
    """
    tuning, test = (
        GeneratedScenes(backend, split, count, seed)
        for split, count in (("calibration", calibration), ("test", n))
    )
    curves = _curves(backend, tuning.stream(folder), on_image)
    thresholds = {place: np.mean([c for _, c in found], axis=0) for place, found in curves.items()}
    judged = _curves(backend, test.stream(folder), on_image)
    if not curves or not judged:
        raise ValueError(
            "no image shows two of the objects that were asked for: take more images, or a model "
            "that follows such prompts better"
        )
    scores = []
    for (layer, step), found in judged.items():
        curve = thresholds[layer, step]
        chosen = int(np.argmax(curve))
        miou = mean_over_words([s for s, _ in found], [c[chosen] for _, c in found], seed=seed)
        tuned = float(curve[chosen])
        scores.append(PlaceScore(layer, step, THRESHOLD_GRID[chosen], tuned, miou))
    timesteps = tuple(float(t) for t in test.first_batch[0].timesteps)
    return LayersStudy(backend.model_id, calibration, n, seed, timesteps, tuple(scores))


def _curves(
    backend: Backend, items: Iterator[DatasetItem], on_image: Callable[[int], object]
) -> dict[Place, list[tuple[str, Sequence[float]]]]:
    """Of every headline word its image and the IoU at each threshold, by layer and step."""
    curves: dict[Place, list[tuple[str, Sequence[float]]]] = {}
    for item in items:
        headline = [scored for scored in item.words if scored.headline]
        for place, maps in _places(backend, item) if headline else ():
            for scored in headline:
                shown = ShownMap(maps.at(scored.word)).normalised
                curve = list(iou_at(shown, scored.mask, THRESHOLD_GRID))
                curves.setdefault(place, []).append((item.sample, curve))
        on_image(1)
    return curves


def _places(backend: Backend, item: DatasetItem) -> Iterator[tuple[Place, AttributionMaps]]:
    for keep in (("step", "layer"), ("layer",), ("step",), ()):
        maps = DAAM(backend, keep=keep).attribute(item.trajectory)
        steps = maps.data.coords["step"].values.tolist() if "step" in keep else [None]
        layers = maps.data.coords["layer"].values.tolist() if "layer" in keep else [None]
        for step in steps:
            for layer in layers:
                labels = {"step": step, "layer": layer}
                yield (layer, step), maps.select(**{axis: labels[axis] for axis in keep})


def draw_layers(study: LayersStudy, path: Path) -> None:
    """The mIoU of each layer at each step as a picture."""
    layers = (*study.layers, None)
    steps = (*range(len(study.timesteps)), None)
    values = np.array([[study.at(layer, s).miou.mean for s in steps] for layer in layers])
    figure = Figure(
        figsize=(2.6 + 0.42 * len(steps), 1.4 + 0.4 * len(layers)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    picture = axis.imshow(values, cmap="viridis", aspect="auto", vmin=0)
    for row, column in np.ndindex(*values.shape):
        bright = values[row, column] > 0.6 * values.max()
        axis.text(
            column,
            row,
            f"{values[row, column]:.2f}".removeprefix("0"),
            ha="center",
            va="center",
            fontsize=7,
            color="black" if bright else "white",
        )
    axis.set_xticks(
        range(len(steps)), [*(f"{t:.0f}" for t in study.timesteps), "all"], fontsize=8, rotation=90
    )
    axis.set_yticks(range(len(layers)), [short(name) for name in layers], fontsize=8)
    axis.set_xlabel("timestep, from the first denoising step to the last")
    figure.colorbar(picture, ax=axis, label="mIoU at the calibrated threshold", pad=0.01)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(path, buffer.getvalue())


def short(layer: str | None) -> str:
    """A layer's name without what all names have in common; ``all`` for all layers."""
    if layer is None:
        return "all"
    for long in ("_blocks", "_block", "attentions.", "transformer_blocks.", ".attn2"):
        layer = layer.replace(long, "")
    return layer
