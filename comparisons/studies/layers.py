"""A study of which cross-attention layer finds the objects best, and at which denoising step."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wordlight.attribution.maps import AttributionMaps, WordMap
from wordlight.attribution.methods.controls import GuidanceNorm
from wordlight.attribution.methods.daam import DAAM
from wordlight.backends.arrays_file import write_atomically
from wordlight.backends.backend import Backend
from wordlight.comparisons.datasets import DatasetItem, ScoredWord
from wordlight.comparisons.datasets.images.generated_scenes import GeneratedScenes
from wordlight.comparisons.metrics.judged import partner
from wordlight.comparisons.metrics.overlap import iou_at
from wordlight.comparisons.metrics.segmentation import THRESHOLD_GRID
from wordlight.comparisons.metrics.shown_map import ShownMap
from wordlight.comparisons.results.figures import figure_png
from wordlight.comparisons.results.text_tables import aligned
from wordlight.comparisons.runs.options import PATH, option, options, whole
from wordlight.comparisons.stats.intervals import SHARE, Estimate, mean_over_words
from wordlight.comparisons.studies.results import estimate_data, estimate_text
from wordlight.comparisons.studies.study import Study, number_of, seed_of
from wordlight.comparisons.wording import counted

#: A layer's name, or a control's, and a step's number; None for all of them, as DAAM averages them.
Place = tuple[str | None, int | None]
#: One word's map at a place, or None where it has none there.
MapOf = Callable[[ScoredWord], WordMap | None]
#: Beside the layers: how far the whole prompt pushes, the same map for every word, and all layers'
#: map of a word of another object.
GUIDANCE, OTHER_WORD = "(guidance-norm)", "(shuffled-word)"
CONTROLS = (GUIDANCE, OTHER_WORD)


@dataclass(frozen=True)
class PlaceScore:
    """DAAM of one layer at one step, or a control there: ``threshold`` and ``tuning`` (the mIoU
    there) are of the calibration images, ``miou`` of the test images."""

    layer: str | None
    step: int | None
    threshold: float
    tuning: float
    miou: Estimate


@dataclass(frozen=True)
class LayersStudy:
    """Every layer at every step, all of them together, and the controls."""

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
        found = dict.fromkeys(s.layer for s in self.scores if s.layer is not None)
        return tuple(layer for layer in found if layer not in CONTROLS)

    @property
    def controls(self) -> tuple[str, ...]:
        """Those of ``CONTROLS`` that could be scored."""
        return tuple(one for one in CONTROLS if any(s.layer == one for s in self.scores))

    @property
    def best(self) -> PlaceScore:
        """The best place as the calibration images tell it, with what it reaches on the others."""
        places = [score for score in self.scores if score.layer not in CONTROLS]
        return max(places, key=lambda score: score.tuning)

    @property
    def text(self) -> str:
        return table(self)

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
    """DAAM's mIoU with only one layer, only one step, or both, beside two controls by step.

    The words are a comparison's headline words. Each place has the threshold of its own that is
    best on the calibration split; so is the best place chosen, and the test split only tells what
    it reaches.

    Args:
        backend: the model; it must draw what its prompts ask for, see ``GeneratedScenes``.
        folder: the folder that keeps the images, or has them already: a comparison's ``samples``
            will do.
        calibration, n: the number of images.
        seed: of the images' noise.
        on_image: called with how many images were done.

    Raises:
        ValueError: no image with a headline word, bad numbers, or images of another model or noise
            in the folder.
        MissingCapabilityError: a model whose attention or prediction can't be had.
    """
    tuning, test = (
        GeneratedScenes(backend, split, count, seed)
        for split, count in (("calibration", calibration), ("test", n))
    )
    timesteps = tuple(float(t) for t in test.first_batch[0].timesteps)
    curves = _curves(backend, _own(tuning, folder, timesteps), on_image)
    thresholds = {place: np.mean([c for _, c in found], axis=0) for place, found in curves.items()}
    judged = _curves(backend, _own(test, folder, timesteps), on_image)
    if not curves or not judged:
        raise ValueError(
            "no image shows two of the objects that were asked for: take more images, or a model "
            "that follows such prompts better"
        )
    scores = []
    for (layer, step), found in judged.items():
        if (layer, step) not in thresholds:
            continue  # No calibration image had a word to take another object's map of.
        curve = thresholds[layer, step]
        chosen = int(np.argmax(curve))
        miou = mean_over_words([s for s, _ in found], [c[chosen] for _, c in found], bounds=SHARE)
        tuned = float(curve[chosen])
        scores.append(PlaceScore(layer, step, THRESHOLD_GRID[chosen], tuned, miou))
    return LayersStudy(backend.model_id, calibration, n, seed, timesteps, tuple(scores))


def _own(
    images: GeneratedScenes, folder: Path, timesteps: tuple[float, ...]
) -> Iterator[DatasetItem]:
    """The images, made where they aren't there; raises ValueError for those of another run."""
    backend = images.backend
    for index, item in enumerate(images.stream(folder)):
        one = item.trajectory
        there = (one.model_id, one.revision, one.seed)
        asked = (backend.model_id, backend.revision, images.noise_seed(index))
        if there != asked:
            raise ValueError(
                f"{images.path(index, folder)} is of other images: it was drawn by {there[0]} at "
                f"{there[1]} from seed {there[2]}, not by {asked[0]} at {asked[1]} from {asked[2]}"
            )
        if tuple(one.timesteps) != timesteps:
            raise ValueError(
                f"{images.path(index, folder)} was drawn in other steps than {backend.model_id} "
                "takes now (another scheduler?): use another folder"
            )
        yield item


def _curves(
    backend: Backend, items: Iterator[DatasetItem], on_image: Callable[[int], object]
) -> dict[Place, list[tuple[str, Sequence[float]]]]:
    """Return each headline word's image and IoU at each threshold, by layer and step."""
    curves: dict[Place, list[tuple[str, Sequence[float]]]] = {}
    for item in items:
        headline = [scored for scored in item.words if scored.headline]
        for place, map_of in _places(backend, item) if headline else ():
            for scored in headline:
                word_map = map_of(scored)
                if word_map is None:
                    continue
                shown = ShownMap(word_map).normalised
                curve = list(iou_at(shown, scored.mask, THRESHOLD_GRID))
                curves.setdefault(place, []).append((item.sample, curve))
        on_image(1)
    return curves


def _places(backend: Backend, item: DatasetItem) -> Iterator[tuple[Place, MapOf]]:
    others = {id(scored): partner(item, scored) for scored in item.words}

    def own(maps: AttributionMaps) -> MapOf:
        return lambda scored: maps.at(scored.word)

    def of_another(maps: AttributionMaps) -> MapOf:
        def map_of(scored: ScoredWord) -> WordMap | None:
            other = others[id(scored)]
            return None if other is None else maps.at(other.word)

        return map_of

    for keep in (("step", "layer"), ("layer",), ("step",), ()):
        maps = DAAM(backend, keep=keep).attribute(item.trajectory)
        steps = maps.data.coords["step"].values.tolist() if "step" in keep else [None]
        layers = maps.data.coords["layer"].values.tolist() if "layer" in keep else [None]
        for step in steps:
            for layer in layers:
                labels = {"step": step, "layer": layer}
                place = maps.select(**{axis: labels[axis] for axis in keep})
                yield (layer, step), own(place)
                if layer is None:
                    yield (OTHER_WORD, step), of_another(place)
    trajectory = item.trajectory
    pushes = [
        GuidanceNorm(backend, steps=(step,)).attribute(trajectory).data.values[0]
        for step in range(trajectory.steps)
    ]

    def push(values: npt.NDArray[np.float32]) -> MapOf:
        return lambda scored: WordMap(scored.word, values, False, trajectory.image)

    for step, values in enumerate(pushes):
        yield (GUIDANCE, step), push(values)
    yield (GUIDANCE, None), push(np.mean(pushes, axis=0))


def draw_layers(study: LayersStudy, path: Path) -> None:
    """The mIoU of each layer at each step as a picture."""
    layers = (*study.layers, None, *study.controls)
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
    axis.set_yticks(range(len(layers)), [short_layer_name(name) for name in layers], fontsize=8)
    axis.axhline(len(study.layers) + 0.5, color="white", linewidth=2)
    axis.set_xlabel("timestep, from the first denoising step to the last")
    figure.colorbar(picture, ax=axis, label="mIoU at the calibrated threshold", pad=0.01)
    write_atomically(path, figure_png(figure, dpi=120))


def short_layer_name(layer: str | None) -> str:
    """A layer's name without what all names have in common; ``all`` for all layers."""
    if layer is None:
        return "all"
    for long in ("attentions.", "transformer_blocks.", ".attn2", "_blocks", "_block"):
        layer = layer.replace(long, "")
    return layer


def table(found: LayersStudy) -> str:
    """The layers over all steps and at their best step, as text; below them all layers together and
    the controls."""

    best_place = found.best
    lines = [["layer", "over all steps [95 %]", "best step", "there [95 %]"]]
    for layer in (*found.layers, None, *found.controls):
        steps = [s for s in found.scores if s.layer == layer and s.step is not None]
        best = max(steps, key=lambda score: score.tuning)
        lines.append(
            [
                short_layer_name(layer),
                estimate_text(found.at(layer, None).miou),
                f"t = {found.timesteps[best.step or 0]:.0f}",
                estimate_text(best.miou),
            ]
        )
    return "\n".join(
        [
            f"DAAM's mIoU on {counted(found.images, 'image')} by {found.model}, by layer, over "
            f"{found.at(None, None).miou.n} words",
            "",
            aligned(lines, extra=1 + len(found.controls)),
            "",
            "thresholds and best steps were chosen on "
            f"{counted(found.calibration, 'calibration image')}; the best place there is",
            f"{short_layer_name(best_place.layer)} at "
            + (
                "all steps"
                if best_place.step is None
                else f"t = {found.timesteps[best_place.step]:.0f}"
            )
            + f", with {estimate_text(best_place.miou)} on the others",
            "(guidance-norm): how far the whole prompt pushes, the same map for every word",
            "(shuffled-word): all layers' map of a word of another object",
        ]
    )


@options
class Layers(Study):
    """The study as a command."""

    name = "layers"
    line = "which layer's attention, at which step, does best"
    epilog = """\
DAAM averages the cross-attention of all layers and steps. This judges each layer at each step by
itself, on the words that a comparison's headline is over, each cut at the threshold that is best
for it on the calibration images. The best place is chosen there too; its score is of the others.
Two controls stand beside them: guidance-norm, how far the whole prompt pushes a pixel, the same for
every word, and shuffled-word, all layers' map of a word of another object.

examples:
  wordlight study layers -n 100 --calibration 50 -o out/layers
  wordlight study layers -n 32 --calibration 16 --images out/compare/samples -o out/layers
"""

    n: int = number_of("test images", 32)
    calibration: int = option(
        whole(1),
        "the number of images on which thresholds and the best place are chosen",
        default=32,
        metavar="N",
    )
    seed: int = seed_of()
    images: Path | None = option(
        PATH,
        "a folder that keeps the images, or has them already, such as a comparison's samples/ "
        "(default: draw them and keep none)",
        default=None,
        metavar="FOLDER",
    )

    def find(self) -> LayersStudy:
        backend, kept = self.load(), self.images
        with (
            tempfile.TemporaryDirectory() if kept is None else nullcontext(kept) as folder,
            self.bar("judging layers", self.calibration + self.n, "images") as bar,
        ):
            return study_layers(
                backend,
                Path(folder),
                calibration=self.calibration,
                n=self.n,
                seed=self.seed,
                on_image=bar.update,
            )

    def write(self, out: Path, found: LayersStudy) -> None:
        draw_layers(found, out / "layers.png")
