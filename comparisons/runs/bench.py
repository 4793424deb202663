"""All that the tasks of a run need, loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import wordlight
from wordlight.backends.backend import Backend, MissingCapabilityError
from wordlight.comparisons.datasets.images.image_set import ImageSet
from wordlight.comparisons.datasets.images.opening import data_settings, open_data, open_images
from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.metrics.registry import resolve
from wordlight.comparisons.rows.budget import Workload
from wordlight.comparisons.rows.map_sources import PrecomputedMaps
from wordlight.comparisons.rows.row import (
    Row,
    check_methods,
    check_steps,
    rows_on,
    with_references,
)
from wordlight.comparisons.rows.supervised import mask_maker, supervised_rows
from wordlight.comparisons.runs.plan import Plan
from wordlight.comparisons.store.cells import check_name
from wordlight.comparisons.store.settings_file import Settings


class Bench:
    """A plan's models, images and rows.

    Attributes:
        plan: the arguments.
        backends: one a framework; the first draws the images.
        calibration, test: the images of the two splits.
        rows: the rows.
        metrics: the metrics, without those of cost.
        not_measured: rows that were asked for and can't be had, each with why.
        unmeasured: metrics that were asked for and can't be had of these images, each with why.

    Raises ValueError as ``compare`` does, for what can't be had.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        # What is wrong with what was asked for is said before a model is loaded.
        metrics = resolve(plan.metrics)
        check_methods(plan.methods, plan.steps, plan.sampling_steps)
        counts = {"calibration": plan.calibration, "test": plan.n}
        data = open_data(plan.data, plan.on_error, counts)
        self.backends = plan.backends
        first = self.backends[0]
        _check_makes_pictures(first)
        maker = mask_maker(plan.masks, plan.device)
        self.calibration, self.test = open_images(
            data,
            first,
            calibration=plan.calibration,
            n=plan.n,
            seed=plan.seed,
            on_error=plan.on_error,
            segmenter=maker,
            redraw=plan.redraw,
        )
        self.metrics, self.unmeasured = _measurable(metrics, self.test, self.backends)
        workload = None
        if plan.budget is not None:
            prompts = (prompt for one in self.sets for prompt in one.prompts)
            workload = Workload.of(first, prompts)
        rows = rows_on(
            self.backends,
            plan.methods,
            _precomputed(plan.maps, self.sets),
            plan.steps,
            plan.budget,
            workload,
        )
        supervised, self.not_measured = supervised_rows(
            plan.segmenters, maker, [row.name for row in rows], plan.device
        )
        with_framework = [
            replace(row, framework=row.framework or first.framework) for row in supervised
        ]
        references = dict.fromkeys(m.reference for m in self.metrics if m.reference)
        every = with_references((*rows, *with_framework), self.backends, references)
        self.rows = tuple(sorted(every, key=lambda row: row.extra))
        for row in self.rows:
            check_steps(row.label, None if row.method is None else row.method.steps, first)
        check_steps("steps", plan.steps, first)
        if self.calibrating and not plan.calibration:
            chosen = next(row.label for row in self.rows if self.calibrates(row))
            raise ValueError(
                f"something has to be chosen for {chosen} (a threshold, or an option), and there "
                "are no calibration images to choose it on: ask for some (--calibration), or for "
                "metrics at fixed thresholds (--metrics miou@0.4) of methods that choose nothing"
            )

    @property
    def sets(self) -> tuple[ImageSet, ImageSet]:
        """The images of both splits."""
        return self.calibration, self.test

    def of_split(self, split: str) -> ImageSet:
        """The images of one of them: ``"calibration"``, or any other name for those of the test."""
        return self.calibration if split == "calibration" else self.test

    def of_framework(self, framework: str) -> list[Row]:
        """The rows whose maps this framework makes."""
        return [row for row in self.rows if row.framework == framework]

    @property
    def frameworks(self) -> tuple[str, ...]:
        """The frameworks in the order in which they were asked for; the first one draws."""
        return tuple(backend.framework for backend in self.backends)

    def backend_of(self, framework: str) -> Backend:
        """The backend of a framework."""
        return next(one for one in self.backends if one.framework == framework)

    def metrics_of(self, row: Row) -> tuple[Metric, ...]:
        """Return a row's metrics: all, but for rows that are here for some metrics' sake."""
        if not row.reference:
            return self.metrics
        kin = {group for one in self.metrics if row.shows(one.reference) for group in one.groups}
        return tuple(one for one in self.metrics if kin.intersection(one.groups))

    @property
    def of_masks(self) -> tuple[Metric, ...]:
        """The metrics that ask for masks alone: the ceiling is measured by them too."""
        alone = {"masks", "thresholds"}
        return tuple(
            one for one in self.metrics if "masks" in one.needs and set(one.needs) <= alone
        )

    def cuts(self, row: Row) -> bool:
        """Return whether a row's maps are cut at thresholds, which the calibration split
        chooses."""
        return any("thresholds" in metric.needs for metric in self.metrics_of(row))

    def calibrates(self, row: Row) -> bool:
        """Return whether there is something to choose for a row."""
        return self.cuts(row) or len(row.variants) > 1

    @property
    def calibrating(self) -> bool:
        """True if the calibration split is looked at."""
        return any(map(self.calibrates, self.rows))

    @property
    def cells(self) -> int:
        """The number of cells that the run has."""
        variants = sum(len(row.variants) for row in self.rows if self.calibrates(row))
        return variants * len(self.calibration) + len(self.rows) * len(self.test)

    def settings(self) -> Settings:
        """All that changes the maps, as plain data. Metrics change none: a run is extended by
        them."""
        plan, first = self.plan, self.backends[0]
        settings: Settings = {
            "wordlight": wordlight.__version__,
            "model": first.model_id,
            "framework": first.framework,
            **_model_facts(first, by_name=isinstance(plan.model, str)),
            "data": data_settings(self.calibration, self.test),
            **plan.identity(),
            "methods": {row.name: row.settings() for row in self.rows if not row.reference},
        }
        if others := self.backends[1:]:
            # The first one makes the trajectories.
            settings["other frameworks"] = {
                one.framework: _model_facts(one, by_name=isinstance(plan.model, str))
                for one in others
            }
        if self.not_measured:
            settings["not measured"] = [name for name, _ in self.not_measured]
        return settings


def _measurable(
    metrics: Sequence[Metric], images: ImageSet, backends: Sequence[Backend]
) -> tuple[tuple[Metric, ...], tuple[tuple[str, str], ...]]:
    """The metrics that can be had of these images, and the others, each with why.

    Raises MissingCapabilityError for a model that can't be asked, ValueError where none can be had.
    """
    there, left_out = [], []
    for metric in metrics:
        if "regeneration" in metric.needs and images.given:
            why = "the images were given, and can't be drawn again without a word"
            left_out.append((metric.name, why))
            continue
        primitives = {"word-game": "denoise", "regeneration": "sample"}
        asked = frozenset(primitives[need] for need in metric.needs if need in primitives)
        for backend in backends:
            backend.require(asked, f"the metric {metric.name}")
        there.append(metric)
    if not there:
        name, why = left_out[0]
        raise ValueError(f"{name} can't be measured: {why}")
    return tuple(there), tuple(left_out)


def _check_makes_pictures(backend: Backend) -> None:
    """Raises MissingCapabilityError for a model of which no pictures can be had."""
    why = [backend.lacks[name] for name in ("sample", "invert") if name in backend.lacks]
    if len(why) < 2:
        return
    raise MissingCapabilityError(
        f"a comparison draws pictures of prompts or takes given ones, and {backend.model_id} can "
        f"do neither ({'; '.join(why)}). Score maps of your own runs, of a video those of a frame: "
        "wordlight.comparisons.metrics.overlap.iou_at(maps['dog'].normalised()[frame], mask, [0.4])"
    )


def _precomputed(
    folders: Mapping[str, str | Path], sets: Sequence[ImageSet]
) -> dict[str, PrecomputedMaps]:
    """Maps from folders; what they lack is told now, and not after hours of drawing."""
    of_sample = {name: one for one in sets for name in one.samples} if folders else {}
    return {
        name: PrecomputedMaps(
            check_name(name),
            Path(folder),
            of_sample,
            lambda sample: of_sample[sample].may_leave_out(sample),
        )
        for name, folder in folders.items()
    }


def _model_facts(backend: Backend, *, by_name: bool) -> dict[str, Any]:
    facts = {"revision": backend.revision, "device": backend.device, "dtype": backend.dtype}
    # A model that was given may have been changed since it was loaded, if it was.
    if not by_name and (weights := backend.weights) is not None:
        facts["weights"] = weights
    return facts
