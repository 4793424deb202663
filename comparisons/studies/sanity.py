"""Cascading weight randomisation: do a method's maps depend on what the model has learned?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wordlight.attribution import registry
from wordlight.attribution.attributor import TextImageAttributor
from wordlight.backends.arrays_file import write_atomically
from wordlight.backends.backend import Backend
from wordlight.backends.trajectory import FloatArray, Trajectory
from wordlight.comparisons.datasets.images.generated_scenes import BATCH, GeneratedScenes
from wordlight.comparisons.metrics.rank_correlation import rank_correlation
from wordlight.comparisons.results.figures import figure_png
from wordlight.comparisons.rows.row import SHUFFLED
from wordlight.comparisons.runs.options import options
from wordlight.comparisons.stats.intervals import Estimate, mean_over_words
from wordlight.comparisons.studies.results import estimate_data
from wordlight.comparisons.studies.study import (
    Study,
    methods_named,
    number_of,
    seed_of,
    steps_looked_at,
)
from wordlight.comparisons.studies.texts import method_for
from wordlight.comparisons.wording import counted

#: The stage of ``Backend.stages`` that is no part of the denoiser.
TEXT_ENCODER = "text_encoder"
#: From this similarity on under a wholly random model, a method is said not to depend on it.
UNCHANGED = 0.9


@dataclass(frozen=True)
class Cascade:
    """One method's similarity to its original maps, stage by stage from the output down."""

    method: str
    stages: tuple[str, ...]
    similarity: tuple[Estimate, ...]

    @property
    def depends_on_model(self) -> bool:
        """True if its maps change once everything is random."""
        return self.similarity[-1].mean < UNCHANGED

    def to_json(self) -> dict[str, Any]:
        """Plain data; what can't be estimated is null."""
        return {
            "method": self.method,
            "stages": list(self.stages),
            "similarity": [estimate_data(one) for one in self.similarity],
            "depends_on_model": self.depends_on_model,
        }


def study_sanity(
    backend: Backend,
    methods: Sequence[str],
    *,
    n: int,
    steps: int = 4,
    split: str = "test",
    seed: int = 0,
    on_cell: Callable[[int], object] = lambda count: None,
) -> tuple[Cascade, ...]:
    """Randomise the model's weights from the output down and compare the maps with the original
    ones (Adebayo et al. 2018, arXiv 1810.03292).

    Images, latents and prompt embeddings stay those of the trained model; similarity is Spearman's
    rank correlation over the latent grid, averaged over the prompts' words, with a t
    interval over images. Maps that are equal have 1; a map that became constant has 0.

    Args:
        backend: the model; it needs ``randomized``.
        methods: names of registered methods.
        n: the number of images of the split.
        steps: the number of evenly spaced steps that methods look at.
        split, seed: of the prompts and their noise, and of the random weights.
        on_cell: called with how many pairs of method and stage were done.

    Raises:
        MissingCapabilityError: a backend whose weights can't be randomised.
        ValueError: an unknown method, split or number.
    """
    backend.require(frozenset({"randomized"}), "the sanity study")
    # A method that there isn't is told before minutes of drawing.
    attributors = {name: method_for(backend, name, steps) for name in methods}
    scenes = GeneratedScenes(backend, split, n, seed)
    trajectories = [t for start in range(0, n, BATCH) for t in scenes.draw(start)]
    samples: list[str] = []
    originals: dict[str, list[FloatArray]] = {name: [] for name in methods}
    for index, trajectory in enumerate(trajectories):
        for position, (name, attributor) in enumerate(attributors.items()):
            found = _word_maps(attributor, trajectory)
            originals[name] += found
            if position == 0:
                samples += [scenes.sample_name(index)] * len(found)
    on_cell(len(methods))
    stages = cascade_stages(backend)
    similarity: dict[str, list[Estimate]] = {name: [] for name in methods}
    for stage in stages:
        with backend.randomized(stage, seed):
            for name, attributor in attributors.items():
                found = [m for t in trajectories for m in _word_maps(attributor, t)]
                pairs = zip(samples, originals[name], found, strict=True)
                values = sorted((s, rank_correlation(one, other)) for s, one, other in pairs)
                of_samples, alike = zip(*values, strict=True)
                similarity[name].append(mean_over_words(of_samples, alike, bounds=(-1.0, 1.0)))
                on_cell(1)
    return tuple(Cascade(name, stages, tuple(similarity[name])) for name in methods)


def cascade_stages(backend: Backend) -> tuple[str, ...]:
    """The denoiser's stages from the output down. The embeddings stay the trained encoder's, so
    another encoder would be another question."""
    return tuple(stage for stage in backend.stages if stage != TEXT_ENCODER)


def _word_maps(attributor: TextImageAttributor, trajectory: Trajectory) -> list[FloatArray]:
    maps = attributor.attribute(trajectory)
    words = [i for i, player in enumerate(maps.players) if player.is_text]
    return [maps.data.values[i] for i in words]


def draw_sanity(path: Path, cascades: Sequence[Cascade]) -> None:
    """Write the curves as a picture."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    stages = ("trained", *cascades[0].stages)
    for number, cascade in enumerate(cascades):
        axis.plot(
            range(len(stages)),
            [1.0, *(e.mean for e in cascade.similarity)],
            label=cascade.method,
            color=f"C{number % 10}",
            linestyle=("-", "--", ":")[number // 10 % 3],
            marker="o",
            markersize=3,
        )
    axis.set_xticks(range(len(stages)), stages, rotation=30, ha="right")
    axis.set_xlabel("randomised from the output down to")
    axis.set_ylabel("rank correlation with the original maps")
    axis.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    write_atomically(path, figure_png(figure, dpi=120))


@dataclass(frozen=True)
class SanityStudy:
    """The cascades of several methods."""

    model: str
    images: int
    cascades: tuple[Cascade, ...]

    @property
    def text(self) -> str:
        images = counted(self.images, "image")
        lines = [f"{self.model}, {images}: rank correlation with the original maps", ""]
        for one in self.cascades:
            last = one.similarity[-1]
            mark = "" if one.depends_on_model else "  does not depend on the model"
            interval = "" if math.isnan(last.low) else f"[{last.low:+.2f}, {last.high:+.2f}]"
            lines.append(f"{one.method:24} {last.mean:+.2f}  {interval}  all random{mark}")
        return "\n".join(lines)

    def to_json(self) -> list[dict[str, Any]]:
        return [one.to_json() for one in self.cascades]


def methods_of(backend: Backend) -> list[str]:
    """The names of the methods that a model can run and that have maps of their own."""
    return [
        name
        for name, kind in registry.available().items()
        if name != SHUFFLED and kind.needs <= backend.capabilities
    ]


@options
class Sanity(Study):
    """The study as a command."""

    name = "sanity"
    line = "whether methods' maps change when the model's weights are randomised"

    method: Sequence[str] | None = methods_named("all installed ones that the model can run")
    n: int = number_of("images", 8)
    steps: int = steps_looked_at()
    seed: int = seed_of("noise and random weights")

    def find(self) -> SanityStudy:
        backend = self.load()
        methods = list(dict.fromkeys(self.method or methods_of(backend)))
        cells = len(methods) * (1 + len(cascade_stages(backend)))
        with self.bar("comparing maps", cells, "maps") as bar:
            cascades = study_sanity(
                backend,
                methods,
                n=self.n,
                steps=self.steps,
                seed=self.seed,
                on_cell=bar.update,
            )
        return SanityStudy(backend.model_id, self.n, cascades)

    def write(self, out: Path, found: SanityStudy) -> None:
        draw_sanity(out / "sanity.png", found.cascades)
