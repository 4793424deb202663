"""The arguments of ``compare``, each said once: signature, flags, run files and identity."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wordlight.attribution.attributor import TextImageAttributor
from wordlight.backends.backend import Backend
from wordlight.backends.loading import default_framework
from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.runs.options import (
    METHODS,
    METRICS,
    MOST_IMAGES,
    PATH,
    SWITCH,
    TEXT,
    TEXTS,
    ModelOptions,
    one_of,
    option,
    options,
    options_of,
    table,
    whole,
)

if TYPE_CHECKING:
    from wordlight.backends.segmenters.segmenter import Segmenter
    from wordlight.comparisons.datasets.dataset import Dataset, OnError
    from wordlight.comparisons.metrics.registry import Asked
    from wordlight.comparisons.rows.row import Methods
    from wordlight.comparisons.runs.bench import Bench
    from wordlight.comparisons.runs.executors import Executor
    from wordlight.comparisons.runs.executors.choice import MakeExecutor
    from wordlight.comparisons.runs.worker import Damaged

_MALFORMED = dataclasses.replace(
    SWITCH,
    read=lambda skip: "skip" if skip else "raise",
    write=lambda value: value == "skip" or None,
)


@options
class Plan(ModelOptions):
    """The arguments of ``compare`` that change its results; ``compare`` says what each is."""

    model: str | Backend | Sequence[Backend] = option(
        TEXT,
        "an embedded model (scenes, the default, things or things-dit), a folder in diffusers' "
        "format, or a Hub id (safetensors only)",
        default="scenes",
        metavar="MODEL",
        kw_only=False,
    )
    methods: Methods | None = option(
        METHODS,
        "a method, repeatable (default: daam, self-attention-refined, input-x-gradient, occlusion "
        "and the controls), also with options (shapley,n_samples=50,name=shapley-50); "
        "shuffled-word adds a row for each method that is no control",
        default=None,
        flags=("--method",),
        kw_only=False,
    )
    metrics: Sequence[Asked] = option(
        METRICS,
        "the metrics, by name or by group: segmentation (default), "
        "faithfulness (or order, removal, infidelity, sensitivity), dice, boundary-f, ...; "
        "options follow a name (infidelity,sets=4); `wordlight metrics` lists them",
        default=("segmentation",),
    )
    pairs: Literal["best", "all"] = option(
        dataclasses.replace(one_of("best", "all"), strict=True),
        "which pairs of rows are tested against each other: the best row on the calibration "
        "images with all others, and each method with its controls (best, the default), or all",
        default="best",
    )
    framework: str | Sequence[str] | None = option(
        dataclasses.replace(TEXTS, flag={"choices": ("torch", "flax"), "action": "append"}),
        "the framework that runs the model (default: torch where it is installed, else flax); "
        "repeatable: the first draws the images, all make maps of them",
        default=None,
    )
    data: str | Path | Dataset | None = option(
        TEXT,
        "the images to judge on: scenes or things (the model draws; default: what it was trained "
        "on, else scenes), scenes,test=SPLIT, rendered-scenes, rendered-things, or a data set as "
        "FORMAT:PATH (coco, coco-gen, folder, imagenet-segmentation, voc; see docs/datasets.md)",
        default=None,
        metavar="DATA",
    )
    on_error: OnError = option(
        _MALFORMED,
        "leave out malformed items of a data set and count them, instead of stopping",
        default="raise",
        flags=("--skip-malformed",),
        key="skip-malformed",
    )
    redraw: bool = option(
        SWITCH,
        "draw a data set's images again from their prompts and seeds, and explain that drawing; "
        "without it, the images are inverted",
        default=False,
    )
    masks: str | Segmenter | None = option(
        TEXT,
        "the segmenter that makes masks for images without: mask2former:MODEL, oneformer:MODEL or "
        "clipseg:MODEL, with a Hub id or a folder, or things, of what the model things can draw",
        default=None,
        metavar="SEGMENTER",
    )
    segmenters: Mapping[str, str | Segmenter] = option(
        table("--segmenter", "NAME=SEGMENTER", "segmenters"),
        "a supervised segmenter to compare with, as a row of its own; repeatable. One without "
        "weights is shown as not measured",
        default_factory=dict,
        flags=("--segmenter",),
    )
    n: int = option(
        whole(1, MOST_IMAGES),
        "the number of test images",
        default=32,
        flags=("-n",),
        metavar="IMAGES",
        identity=True,
    )
    calibration: int = option(
        whole(0, MOST_IMAGES),
        "the number of images on which thresholds are chosen; with 0 a data set is tested on "
        "whole, by metrics and methods that choose nothing",
        default=16,
        metavar="IMAGES",
        identity=True,
    )
    seed: int = option(
        whole(0), "the seed of the images' noise and of the resampling", default=0, identity=True
    )
    steps: int = option(
        whole(1),
        "the number of evenly spaced denoising steps that methods look at",
        default=4,
        identity=True,
    )
    maps: Mapping[str, str | Path] = option(
        table("--maps", "NAME=FOLDER", "folders"),
        "maps of your own, as a row: <sample>.safetensors files, saved by "
        "AttributionMaps.save, for the images of an earlier run's samples/; or another run's "
        "maps/FRAMEWORK; repeatable",
        default_factory=dict,
    )
    budget: int | None = option(
        whole(1),
        "the highest cost of an image, in forward-equivalents (a forward pass 1, a "
        "forward-mode product 2, a reverse one 3): every method gets as much effort (n_steps, "
        "n_samples, ...) as fits for every image; one that doesn't fit at all is refused before "
        "any work",
        default=None,
        metavar="N",
        identity=True,
    )

    def __post_init__(self) -> None:
        if isinstance(self.model, Backend | Path):
            model = (self.model,) if isinstance(self.model, Backend) else str(self.model)
            object.__setattr__(self, "model", model)
        # Workers on other machines take the one that was chosen here.
        named = default_framework() if self.framework is None else self.framework
        frameworks = (named,) if isinstance(named, str) else tuple(named)
        object.__setattr__(self, "framework", frameworks)
        for name in ("segmenters", "maps"):
            object.__setattr__(self, name, dict(getattr(self, name) or {}))
        super().__post_init__()
        if not frameworks:
            raise ValueError("name at least one framework")
        if twice := [f for f in frameworks if frameworks.count(f) > 1]:
            raise ValueError(f"the framework {twice[0]} is named twice")
        if not isinstance(self.model, str):
            for name, of in _OF_NAMES.items():
                if getattr(self, name) is not None:
                    raise ValueError(f"{of} for a model that is named, not for a backend")

    @property
    def by_name(self) -> bool:
        """True if another process can do it too: models and methods are named, not given."""
        methods = self.methods or ()
        given = methods.values() if isinstance(methods, Mapping) else methods
        objects = any(isinstance(one, TextImageAttributor) for one in given)
        segmenters = (self.masks or "", *self.segmenters.values())
        return (
            isinstance(self.model, str)
            and (self.data is None or isinstance(self.data, str | Path))
            and all(isinstance(one, str) for one in segmenters)
            and not any(isinstance(one, Metric) for one in self.metrics)
            and not objects
        )

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The models, loaded where they are named; raises ModelLoadError, ValueError."""
        if isinstance(self.model, str):
            return tuple(self.load(one) for one in self.framework or ())
        given: tuple[Any, ...] = (self.model,)
        if isinstance(self.model, Sequence):
            given = tuple(self.model)
        if wrong := [one for one in given if not isinstance(one, Backend)]:
            raise ValueError(
                f"a model is a name or what load(...) gives, not a {type(wrong[0]).__name__}"
                + (": load(pipeline) makes one of it" if hasattr(wrong[0], "scheduler") else "")
            )
        names = [backend.framework for backend in given]
        if not given or len(set(names)) < len(names):
            raise ValueError(f"one backend a framework is needed, not {names}")
        return given

    def written(self) -> dict[str, Any]:
        """Return the content of a run file, for models and methods that are named."""
        values = {one.key: (one.kind, getattr(self, one.name)) for one in options_of(Plan)}
        found = {key: kind.write(v) for key, (kind, v) in values.items() if v is not None}
        if self.maps:
            found["maps"] = {name: str(Path(where).resolve()) for name, where in self.maps.items()}
        return {key: value for key, value in found.items() if value is not None}


#: Options of models that ``load`` loads, and what is said of them beside a backend.
_OF_NAMES = {
    "scheduler": "a scheduler is chosen",
    "dtype": "a dtype is chosen",
    "precision": "a precision is chosen",
    "sampling_steps": "sampling_steps are chosen (backend.draw_with(steps=...) for a backend)",
    "guidance": "guidance is chosen (backend.draw_with(guidance_scale=...) for a backend)",
}


@options
class Arguments(Plan):
    """All arguments of ``compare``: a plan, and where and how it is carried out."""

    out: str | Path = option(
        PATH,
        "the folder for the results (default: out/compare)",
        flags=("-o", "--out"),
        metavar="FOLDER",
    )
    damaged: Damaged = option(
        one_of("stop", "recompute"),
        "on a file of the run that can't be read: stop and name it (default), or make it again "
        "and say so",
        default="stop",
    )
    executor: str | MakeExecutor | None = option(
        one_of("local", "ray"),
        "run here (local, the default) or on a Ray cluster (see docs/runs.md)",
        default="local",
    )
    workers: int | None = option(
        whole(1),
        "with ray: the number of workers (default: one for each GPU or TPU host, else one for "
        "each machine, with all its cores)",
        default=None,
        metavar="N",
    )
    address: str | None = option(
        TEXT,
        "with ray: the cluster's address (default: RAY_ADDRESS, else this machine alone)",
        default=None,
        metavar="ADDRESS",
    )

    progress: bool = True
    command: str | None = None

    def make_executor(self, bench: Bench, root: Path) -> Executor:
        """Return the executor; raises ValueError for options that it doesn't take."""
        from wordlight.comparisons.runs.executors.choice import make_executor

        make = self.executor
        if make is None or isinstance(make, str):
            make = make_executor(make or "local", self.workers, self.address)
        return make(bench, root, self.damaged)

    @property
    def plan(self) -> Plan:
        """The part that changes the results, by itself."""
        return Plan(**{one.name: getattr(self, one.name) for one in dataclasses.fields(Plan)})
