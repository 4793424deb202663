"""Does the tasks of a run: draws images, makes cells. What is finished on disk isn't done again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

from wordlight.attribution.maps import AttributionMaps
from wordlight.attribution.methods.regeneration import Regeneration
from wordlight.comparisons.datasets import DatasetItem
from wordlight.comparisons.datasets.images.image_set import ImageSet
from wordlight.comparisons.metrics.ceiling import mask_on_grid
from wordlight.comparisons.metrics.judged import ModelWithoutWords, Thresholds
from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.rows.calibration import Choice
from wordlight.comparisons.rows.map_sources import MethodError, PrecomputedMapsError
from wordlight.comparisons.rows.row import Row, Variant
from wordlight.comparisons.runs.bench import Bench
from wordlight.comparisons.runs.image_words import Survey, survey_path
from wordlight.comparisons.runs.scoring import (
    CURVE,
    calibration_cell,
    choice_of,
    identities,
    judged_cell,
    still_holds,
)
from wordlight.comparisons.store import failures
from wordlight.comparisons.store.cells import Cell, CellFolder, DamagedFileError
from wordlight.comparisons.store.failures import Failure
from wordlight.comparisons.store.settings_file import holds_same_run, settings_hash

#: What becomes of a run's file that can't be read.
Damaged = Literal["stop", "recompute"]
SAMPLES = "samples"
T = TypeVar("T")


@dataclass(frozen=True)
class CalibrationChoice:
    """The calibration split's choice for a row: the number of its variant, and thresholds where its
    maps are cut."""

    variant: int
    thresholds: Thresholds | None

    @classmethod
    def of(cls, row: Row, choice: Choice) -> CalibrationChoice:
        """Return the choice as plain data."""
        return cls(row.variants.index(choice.variant), choice.thresholds)


@dataclass(frozen=True)
class Task:
    """A piece of a run, small enough to be done again when its worker is lost.

    Attributes:
        kind: ``"try"`` whether such images can be judged on, before anything is kept; ``"draw"`` a
            batch of images; ``"calibrate"`` or ``"judge"`` one image's cells.
        split: of the images.
        index: of the image, or of the batch's first.
        n: for ``"calibrate"`` and ``"judge"``, the number of images, from that one on, whose maps
            are made side by side.
        framework: the framework of the cells.
        chosen: for ``"judge"``, by row.
        survey: for ``"judge"``, whether the image's words are to be written down too.
        ceiling: then the ceiling's thresholds, where some were chosen.
    """

    kind: Literal["try", "draw", "calibrate", "judge"]
    split: str
    index: int
    framework: str = ""
    chosen: Mapping[str, CalibrationChoice] = field(default_factory=dict)
    survey: bool = False
    ceiling: Thresholds | None = None
    n: int = 1

    def apart(self) -> list[Task]:
        """Return a task for each image."""
        return [replace(self, index=self.index + k, n=1) for k in range(self.n)]


@dataclass
class TaskOutcome:
    """The outcome of a task: how many images or cells weren't there before, cells that failed in
    it, damaged files that were made again, and images that were left out, each with why."""

    task: Task
    units: int = 0
    failures: list[Failure] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, other: TaskOutcome) -> None:
        """Count what came of another part of the task too."""
        self.units += other.units
        self.failures += other.failures
        self.damaged += other.damaged
        self.left_out |= other.left_out

    def take(self) -> TaskOutcome:
        """Return what was counted so far, and count anew."""
        taken = replace(self)
        self.units, self.failures, self.damaged, self.left_out = 0, [], [], {}
        return taken


class OverBudgetError(ValueError):
    """An image costs more than any was foreseen to."""


#: Errors of what a run was given, or of its disk, which other cells would run into as well.
STOPPING = (OSError, PrecomputedMapsError, OverBudgetError)


@dataclass(frozen=True)
class CellTask:
    """One cell of a task: its row, the variant, its name, and for a test image what it is judged
    by, and at which thresholds."""

    row: Row
    variant: Variant
    name: str
    metrics: tuple[Metric, ...] | None = None
    thresholds: Thresholds | None = None

    @property
    def wanted(self) -> Mapping[str, str]:
        """The content of the finished cell: metrics with their identities."""
        if self.metrics is None:
            return CURVE
        return identities(self.metrics) | (CURVE if self.thresholds is not None else {})

    @property
    def choice(self) -> tuple[str | float, ...]:
        """The choice that it is judged at; nothing on the calibration split."""
        return () if self.metrics is None else choice_of(self.variant, self.thresholds)


def cells_of(bench: Bench, task: Task) -> list[CellTask]:
    """The cells that a task makes, in order."""
    found = []
    for row in bench.of_framework(task.framework):
        if task.kind == "calibrate" and bench.calibrates(row):
            names = cell_names(row, calibrating=True)
            for variant, name in zip(row.variants, names, strict=True):
                found.append(CellTask(row, variant, name))
        elif task.kind == "judge" and row.name in task.chosen:
            chosen = task.chosen[row.name]
            variant = row.variants[chosen.variant]
            metrics = bench.metrics_of(row)
            found.append(CellTask(row, variant, row.name, metrics, chosen.thresholds))
    return found


def cell_names(row: Row, *, calibrating: bool) -> list[str]:
    """The cells of a row on one image: on the calibration split one a variant."""
    if not calibrating or row.shuffled:
        return [row.name]
    return [variant.cell for variant in row.variants]


class Worker:
    """Does tasks, one at a time, in this process.

    Args:
        bench: the plan's models, images and rows.
        root: the run's folder.
        damaged: ``"stop"`` raises DamagedFileError for a file of the run that can't be read,
            ``"recompute"`` makes it again.
        run: the hash of the run's settings, where other workers say them; this process's own are
            looked at for None.
    """

    def __init__(
        self, bench: Bench, root: Path, damaged: Damaged = "stop", run: str | None = None
    ) -> None:
        if damaged not in ("stop", "recompute"):
            raise ValueError(f"damaged must be 'stop' or 'recompute', not {damaged!r}")
        self.bench = bench
        self.root = root
        self.damaged = damaged
        self._run = run

    @cached_property
    def run(self) -> str:
        """The hash of the run's settings, as its folder has them.

        Raises ValueError where the folder isn't there, or where this process would make another
        run: with another release, say, or on another kind of device.
        """
        if self._run is not None:
            return self._run
        if not holds_same_run(self.root, self.bench.settings()):
            raise ValueError(
                f"{self.root} holds no run here: every worker must see the same folder"
            )
        return settings_hash(self.bench.settings())

    def do(self, task: Task) -> TaskOutcome:
        """Do a task, or what is left of it.

        A cell whose method fails is recorded and left out; everything else is raised.
        """
        done = TaskOutcome(task)
        for part in self.parts(task):
            done.add(part)
        return done

    def parts(self, task: Task) -> Iterator[TaskOutcome]:
        """Do a task as ``do`` does, and yield what came of each row's cells."""
        done = TaskOutcome(task)
        images = self.bench.of_split(task.split)
        if task.kind == "try":
            _try(images, self.bench)
            yield done
            return
        images.run = self.run
        if task.kind == "draw":
            done.units = images.n_missing(task.index, self.root / SAMPLES)
            images.make(task.index, self.root / SAMPLES)
            numbers = images.batch_from(task.index)
        else:
            yield from self._cells(task, images, done)
            numbers = range(task.index, task.index + task.n)
        # Whoever reports them has a data set of its own, which hasn't seen these images.
        samples = (images.samples[index] for index in numbers)
        done.left_out = {one: images.left_out[one] for one in samples if one in images.left_out}
        yield done

    def _cells(self, task: Task, images: ImageSet, done: TaskOutcome) -> Iterator[TaskOutcome]:
        numbers = range(task.index, task.index + task.n)
        kept = [_Kept(self, images, index, done) for index in numbers]
        cells = CellFolder(self.root, task.framework, self.run)
        for one in cells_of(self.bench, task):
            begun = [
                _Begun(image, *found)
                for image in kept
                if (found := self._lacking(one, cells, image))
            ]
            self._make_ahead(one, cells, kept, begun)
            for each in begun:
                self._cell(one, cells, each, done)
            yield done.take()
        if task.survey:
            for image in kept:
                self._survey(task.ceiling, image, done)

    def item(self, images: ImageSet, index: int, done: TaskOutcome) -> DatasetItem | None:
        """An image of the run, made where it isn't there; None for one that is left out."""
        images.run = self.run
        return _Kept(self, images, index, done).item()

    def _lacking(
        self, one: CellTask, cells: CellFolder, kept: _Kept
    ) -> tuple[Cell | None, Collection[str]] | None:
        """What there is of a cell, and the metrics that it lacks; None where it lacks none, or
        failed."""
        sample = kept.sample
        if failures.is_recorded(self.root, cells.framework, sample, one.name):
            return None
        held = self.attempt(lambda: cells.read(sample, one.name), kept.done)
        if held is not None and not still_holds(held, one.choice):
            # What was judged at another choice must not pass for this one if it fails now.
            cells.cell_path(sample, one.name).unlink(missing_ok=True)
            held = None
        lacking = one.wanted.keys() if held is None else held.missing_metrics(one.wanted)
        return (held, lacking) if lacking else None

    def _make_ahead(
        self, one: CellTask, cells: CellFolder, kept: Sequence[_Kept], begun: Sequence[_Begun]
    ) -> None:
        """Make the maps of several images side by side, where some of them are wanted.

        They are always made in the same company, also in a run that goes on, so that rounding comes
        out the same. What fails here fails again by itself, and is recorded then.
        """
        paths = {image: cells.maps_path(image.sample, one.variant.cell) for image in kept}
        wanted = (each.kept for each in begun if one.variant.cell not in each.kept.broken)
        if len(kept) == 1 or all(paths[image].exists() for image in wanted):
            return
        items = {path: item for image, path in paths.items() if (item := image.item()) is not None}
        try:
            for item in items.values():
                _check_budget(one.row, item, self.bench.plan.budget)
            one.variant.source.make_ahead(items)
        except STOPPING:
            raise
        except Exception:
            return

    def _cell(self, one: CellTask, cells: CellFolder, begun: _Begun, done: TaskOutcome) -> None:
        kept = begun.kept
        done.units += 1
        item = kept.item()
        if item is None:
            return
        try:
            if one.variant.cell in kept.broken:
                raise MethodError from kept.broken[one.variant.cell]
            _check_budget(one.row, item, self.bench.plan.budget)
            self.attempt(
                lambda: self._make(one, cells, kept, item, begun.held, begun.lacking), done
            )
        except (*STOPPING, DamagedFileError):
            raise
        except Exception as error:
            cause: BaseException = error
            if isinstance(error, MethodError) and error.__cause__ is not None:
                cause = kept.broken[one.variant.cell] = error.__cause__
            failure = Failure.of(cells.framework, kept.sample, one.name, cause)
            failures.record(self.root, failure)
            done.failures.append(failure)

    def _make(
        self,
        one: CellTask,
        cells: CellFolder,
        kept: _Kept,
        item: DatasetItem,
        held: Cell | None,
        lacking: Collection[str],
    ) -> None:
        if one.metrics is None:
            calibration_cell(cells, item, one.row, one.variant)
            return
        judged_cell(
            cells,
            item,
            one.row,
            one.variant,
            [metric for metric in one.metrics if metric.name in lacking],
            thresholds=one.thresholds,
            model=kept.model(cells, item),
            held=held,
        )

    def _survey(self, ceiling: Thresholds | None, kept: _Kept, done: TaskOutcome) -> None:
        path = survey_path(self.root, kept.sample)
        metrics = self.bench.of_masks

        def read() -> Survey | None:
            return Survey.read(path, self.run) if path.exists() else None

        held = self.attempt(read, done)
        if held is not None and held.has_measures(metrics, ceiling):
            return
        item = kept.item()
        if item is not None:
            Survey.of(item, metrics, ceiling, held).write(path, self.run)

    def attempt(self, make: Callable[[], T], done: TaskOutcome) -> T:
        """Do something that reads files of the run; a damaged one is removed, and it is tried
        again, where that was asked for."""
        seen: set[Path] = set()
        while True:
            try:
                return make()
            except DamagedFileError as error:
                if self.damaged == "stop" or error.path in seen:
                    raise
                seen.add(error.path)
                error.path.unlink(missing_ok=True)
                done.damaged.append(str(error.path.relative_to(self.root)))


class _Kept:
    """An image of the run, read when it is first needed; ``broken`` is why methods can't explain
    it, by cell."""

    def __init__(self, worker: Worker, images: ImageSet, index: int, done: TaskOutcome) -> None:
        self.worker, self.images, self.index, self.done = worker, images, index, done
        self.sample = images.samples[index]
        self.broken: dict[str, BaseException] = {}
        self._item: tuple[DatasetItem | None] | None = None
        self._model: ModelWithoutWords | None = None

    def item(self) -> DatasetItem | None:
        if self._item is None:
            self._item = (self.worker.attempt(self._read, self.done),)
        return self._item[0]

    def model(self, cells: CellFolder, item: DatasetItem) -> ModelWithoutWords:
        """Return a framework's model as metrics may ask it about the image: one for all rows."""
        if self._model is None:
            bench = self.worker.bench

            def changes() -> AttributionMaps:
                own = bench.of_framework(cells.framework)
                variant = next(row for row in own if row.shows(Regeneration.name)).variants[0]
                return variant.source.maps(item, cells.maps_path(item.sample, variant.cell))

            self._model = ModelWithoutWords(
                bench.backend_of(cells.framework),
                item,
                steps=bench.plan.steps,
                seed=bench.plan.seed,
                changes=changes,
            )
        return self._model

    def _read(self) -> DatasetItem | None:
        folder = self.worker.root / SAMPLES
        if not self.images.path(self.index, folder).exists():
            self.images.make(self.index - self.index % self.images.batch, folder)
        return self.images.item(self.index, folder)


@dataclass(frozen=True, eq=False)
class _Begun:
    """A cell that is to be made: its image, what there is of it, and what that lacks."""

    kept: _Kept
    held: Cell | None
    lacking: Collection[str]


def _check_budget(row: Row, item: DatasetItem, budget: int | None) -> None:
    """Raises OverBudgetError where an image turns out larger than was foreseen when efforts were
    chosen, or maps from files say that they cost more."""
    if budget is None or row.reference:
        return
    method = row.method
    if method is None:
        cost = row.variants[0].source.maps(item, Path()).provenance.forward_equivalents
    else:
        cost = method.cost(method.size_of(item.trajectory)).forward_equivalents
    if cost > budget:
        raise OverBudgetError(
            f"{row.label} costs {cost} forward-equivalents for {item.sample}, and the "
            f"budget is {budget}"
        )


def _try(images: ImageSet, bench: Bench) -> None:
    """Raises ValueError for step sets or an image size that can't be."""
    trajectory = images.first_batch[0]
    trajectory.at_steps(bench.plan.steps)
    for row in bench.rows:
        try:
            trajectory.at_steps(row.method.steps if row.method is not None else None)
        except ValueError as error:
            raise ValueError(f"{row.label}: {error}") from None
    height, width = trajectory.image.shape[:2]
    blank = trajectory.image[..., 0] > 255
    try:
        mask_on_grid(blank, trajectory.grid)
    except ValueError:
        raise ValueError(
            f"{trajectory.model_id} draws {height}x{width} pixels on latents of "
            f"{trajectory.grid[0]}x{trajectory.grid[1]}, which don't divide them"
        ) from None
