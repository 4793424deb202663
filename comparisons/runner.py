"""``compare``: the whole way from prompts to a table, cell by cell."""

from __future__ import annotations

import math
import shlex
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from wordlight.attribution.attributor import IMAGES_AT_ONCE
from wordlight.attribution.maps import AttributionMaps
from wordlight.backends.arrays_file import write_atomically
from wordlight.backends.progress_bar import ProgressBar
from wordlight.comparisons.datasets import DatasetItem, WordCounts
from wordlight.comparisons.datasets.images.image_set import ImageSet
from wordlight.comparisons.datasets.images.opening import describe, headline_words
from wordlight.comparisons.metrics import cost
from wordlight.comparisons.metrics.judged import Thresholds
from wordlight.comparisons.results.comparison import (
    HEADLINE,
    Comparison,
    ComparisonFacts,
    account,
    check_headline,
    summarise,
    summarise_ceiling,
)
from wordlight.comparisons.results.files import write_reports
from wordlight.comparisons.results.finished_run import COMMAND
from wordlight.comparisons.results.html import write_report
from wordlight.comparisons.rows.calibration import (
    Choice,
    ceiling_thresholds,
    choose,
    has_headline_word,
    nothing_to_choose_on,
)
from wordlight.comparisons.rows.row import Row
from wordlight.comparisons.runs.bench import Bench
from wordlight.comparisons.runs.config_file import CONFIG, write_config
from wordlight.comparisons.runs.executors import Executor
from wordlight.comparisons.runs.image_words import Surveys
from wordlight.comparisons.runs.options import called_with
from wordlight.comparisons.runs.plan import Arguments
from wordlight.comparisons.runs.scoring import identities
from wordlight.comparisons.runs.worker import (
    SAMPLES,
    CalibrationChoice,
    Damaged,
    Task,
    TaskOutcome,
    Worker,
    cell_names,
)
from wordlight.comparisons.store import failures
from wordlight.comparisons.store.cells import Cell, CellFolder, DamagedFileError, Score
from wordlight.comparisons.store.lock import locked
from wordlight.comparisons.store.output_folder import writable_folder
from wordlight.comparisons.store.settings_file import (
    KEPT,
    Settings,
    change_about,
    forget_settings,
    holds_same_run,
    read_settings,
    restore_settings,
    settings_hash,
    write_settings,
)
from wordlight.comparisons.wording import counted


class RunWarning(UserWarning):
    """Something went wrong in a run that didn't stop it."""


@called_with(Arguments)
def compare(arguments: Arguments) -> Comparison:
    """Score attribution methods against each other, on images that a model draws or on a data set.

    By default prompts are of the kind that the model was trained on, where that is known, or those
    of ``scenes``, and masks come from the pixels of what it drew. What can be chosen (each row's
    threshold, the centre's width) is chosen on the calibration split; the test split is read once.
    A run that was stopped goes on where it was when it is called again with the same settings, and
    cells that failed are tried again.

    Args:
        model: a model that ``load`` made, the name of one as ``load`` takes it, or one backend a
            framework.
        methods: names, names with options (``{"method": "integrated-gradients", "name": "ig",
            "n_steps": 16}``), attributors, or attributors by names of their own; the default ones
            for None. ``"shuffled-word"`` adds a row for each method that is no control.
        out: the folder of the results: ``results.parquet`` and the cells it is made of, the maps,
            the images, the tables, a picture of them, and a page, ``report.html``.
        data: ``"scenes"``, ``"things"``, or a data set, as ``open_dataset`` takes it; the prompts
            that the model was trained on, where they are known, or ``"scenes"``, for None.
        on_error: whether what is malformed in a data set raises (``"raise"``), or is left out and
            counted (``"skip"``).
        redraw: draw a data set's images again from their seeds, for maps of the very drawing, where
            else they are inverted.
        masks: a supervised segmenter, as ``load_segmenter`` takes it, that makes the masks of
            images that have none.
        segmenters: rows of supervised segmenters, by name; one that can't be loaded is shown as
            not measured, and the one that made the masks is refused.
        n: images of the test split.
        seed: of the images' noise and of the resampling.
        steps: the number of evenly spaced denoising steps that every named method looks at.
        calibration: images of the calibration split. With 0 all of a data set is its test split,
            unless it has splits of its own, and nothing may have to be chosen.
        maps: rows of precomputed maps: a folder by name, with a ``<sample>.safetensors`` for
            every image of both splits, as ``AttributionMaps.save`` writes it.
        budget: the most that an image may cost, in forward-equivalents: every method gets the most
            effort (``n_steps``, ``n_samples``, ...) for which no image of the run costs more.
        metrics: the metrics: metrics or groups of them by name (``"segmentation"``, the
            default, ``"faithfulness"``, ``"dice"``, ...), names with options (``{"metric":
            "infidelity", "sets": 4}``), or ``Metric`` objects; ``wordlight metrics`` lists
            them. A run in a folder is extended by those that it lacks; nothing is computed
            twice.
        pairs: the rows that are tested against each other: ``"best"``, the row that did best on the
            calibration images with all others, and each method with its controls, or ``"all"``.
            More pairs find less, since each is corrected for the others.
        framework, device, dtype, precision, scheduler: for a model that is named, as ``load``
            takes them. Of several frameworks the first draws the images, and every one makes maps
            of them.
        sampling_steps, guidance: the number of denoising steps of a model that is named, and
            which guidance scale; as it recommends for None.
        progress: whether to show bars on stderr.
        damaged: the treatment of a file of the run that can't be read: ``"stop"`` raises
            ValueError, ``"recompute"`` makes it again and says so in a RunWarning.
        executor: the place of the work: ``"local"``, in this process, ``"ray"``, or what
            ``make_executor`` gives.
        workers, address: for Ray, see ``make_executor``.
        command: the command line that asked for this, kept with the results; for None, a command
            that asks for the same, where models, methods and data are named.

    Returns:
        The estimates; ``print`` shows them as a table. ``failures`` names the cells whose method
        raised an error: they are recorded in the folder, and the run goes on without them.

    Raises:
        ValueError: bad arguments, ``out`` holding a run with other settings or being in use,
            a damaged file there, images without a word to score, methods that the budget doesn't
            pay for.
        OSError: a folder that can't be read or written.
    """
    plan, damaged, command = arguments.plan, arguments.damaged, arguments.command
    root = Path(arguments.out)
    with writable_folder(root), locked(root):
        # Loading a model can take minutes: a folder that is in use is refused before.
        bench = Bench(plan)
        there = arguments.make_executor(bench, root)
        try:
            settings = there.settings()
            if damaged == "recompute":
                restore_settings(root, settings, cells=bench.cells)
            if holds_same_run(root, settings):
                _sweep(root)
                if changed := _forget_other_code(root, bench):
                    warnings.warn(
                        f"the code of {', '.join(changed)} was changed since {root} was made: "
                        "these cells are made again",
                        RunWarning,
                        stacklevel=3,
                    )
            else:
                tried = "calibration" if bench.calibrating else "test"
                for _ in there.map([Task("try", tried, 0)]):
                    pass
                write_settings(root, settings, cells=bench.cells, sources=_sources(bench))
            if plan.by_name:
                write_config(root / CONFIG, plan)
                command = command or shlex.join(
                    ["wordlight", "compare", "--config", str(root / CONFIG), "--out", str(root)]
                )
            failures.forget(root)
            comparison = _Run(bench, root, damaged, there, settings, arguments.progress).finish()
            if command is not None:
                text = f"{command}\n".encode("utf-8", "surrogateescape")
                write_atomically(root / COMMAND, text)
            write_report(root)
        finally:
            there.close()
    for images in bench.sets:
        images.report_left_out()
    if comparison.damaged:
        warnings.warn(
            f"{len(comparison.damaged)} damaged files of {root} were made again: "
            f"{', '.join(comparison.damaged[:3])}{', ...' if len(comparison.damaged) > 3 else ''}",
            RunWarning,
            stacklevel=3,
        )
    return comparison


def _forget_other_code(root: Path, bench: Bench) -> list[str]:
    """Remove the cells and maps of rows whose code, of no installed release, was changed since they
    were made; gives the rows' names."""
    _, about = read_settings(root)
    sources = _sources(bench)
    held = about.get("sources", {})
    changed = [row for row in bench.rows if held.get(row.name, "") != sources[row.name]]
    for row in changed:
        made = {row.name, *(variant.cell for variant in row.variants)}
        for path in (root / "cells" / row.framework).glob("*/*.parquet"):
            if path.stem in made:
                path.unlink()
        for path in (root / "maps" / row.framework).glob("*/*.safetensors"):
            if path.stem in made:
                path.unlink()
    if changed:
        change_about(root, sources=sources)
    return [row.name for row in changed]


def _sources(bench: Bench) -> dict[str, str]:
    """Return the code that makes each row's maps, as far as it is of no installed release."""
    return {row.name: row.variants[0].source.source for row in bench.rows}


def _sweep(root: Path) -> None:
    """Remove what a run that was killed had begun to write; a folder is one run's at a time."""
    begun = [*root.glob(".*.partial")]
    for ours in KEPT:
        begun += (root / ours).rglob(".*.partial")
    for path in begun:
        path.unlink(missing_ok=True)


class _Run:
    """A run whose settings are written, and what happened in it so far."""

    def __init__(
        self,
        bench: Bench,
        root: Path,
        damaged: Damaged,
        executor: Executor,
        settings: Settings,
        progress: bool,
    ) -> None:
        self.bench = bench
        self.root = root
        self.executor = executor
        self.progress = progress
        # The workers', whose devices may be of another kind than this process's.
        self.settings = settings
        # What the tables need is read here, wherever the work is done.
        self.worker = Worker(bench, root, damaged, settings_hash(settings))
        self.failed = 0
        self.calibrated = 0
        self.accounting = WordCounts({}, {})
        self.damaged: list[str] = []

    def finish(self) -> Comparison:
        """Do what is left of it, and write its tables."""
        bench = self.bench
        self._draw()
        cuts = any(map(bench.cuts, bench.rows))
        ceiling_at = None
        try:
            if bench.calibrating:
                self.accounting = WordCounts.of(self._calibration_items())
            if cuts:
                ceiling_at = ceiling_thresholds(self._items(bench.calibration))
            if cuts or all(metric.of_headline for metric in bench.metrics):
                check_headline(self._items(bench.test))
        except DamagedFileError:
            raise
        except ValueError:
            # Such images can't be judged on: they don't stand in the way of other settings. Once
            # there are cells the images could be, and the error is of something that may pass.
            if not self._finished():
                for one in bench.sets:
                    one.forget(self.root / SAMPLES)
                forget_settings(self.root)
                (self.root / CONFIG).unlink(missing_ok=True)
            raise
        with self._bar("making maps", bench.cells, self._finished(), "maps") as bar:
            self._do(self._calibrating(), bar)
            choices, lost = self._choose()
            bar.total = (bar.total or 0) - len(lost) * len(bench.test)
            self._do(self._judging(choices, ceiling_at), bar)
        return self._conclude(choices, lost, ceiling_at)

    def _draw(self) -> None:
        folder = self.root / SAMPLES
        tasks = []
        missing = 0
        sets = self.bench.sets if self.bench.calibrating else (self.bench.test,)
        for images in sets:
            for start in range(0, len(images), images.batch):
                lacking = images.n_missing(start, folder)
                missing += lacking
                if lacking:
                    tasks.append(Task("draw", images.split, start))
        total = sum(map(len, sets))
        what = "reading images" if self.bench.test.given else "drawing images"
        with self._bar(what, total, total - missing, "images") as bar:
            self._do(tasks, bar)

    def _calibrating(self) -> Iterator[Task]:
        if self.bench.calibrating:
            for framework, start, n in self._companies(self.bench.calibration):
                yield Task("calibrate", "calibration", start, framework, n=n)

    def _judging(self, choices: Mapping[str, Choice], ceiling: Thresholds | None) -> Iterator[Task]:
        bench = self.bench
        chosen = {
            framework: {
                row.name: CalibrationChoice.of(row, choices[row.name])
                for row in bench.of_framework(framework)
                if row.name in choices
            }
            for framework in bench.frameworks
        }
        for framework, start, n in self._companies(bench.test):
            first = framework == bench.frameworks[0]
            yield Task("judge", "test", start, framework, chosen[framework], first, ceiling, n)

    def _companies(self, images: ImageSet) -> Iterator[tuple[str, int, int]]:
        """Yield the images whose maps are made side by side: the framework, the first one's number,
        and how many. They are the same ones in a run that goes on."""
        for start in range(0, len(images), IMAGES_AT_ONCE):
            stop = min(start + IMAGES_AT_ONCE, len(images))
            for backend in self.bench.backends:
                n = stop - start if backend.shares_passes else 1
                yield from ((backend.framework, one, n) for one in range(start, stop, n))

    def _do(self, tasks: Iterable[Task], bar: ProgressBar[NoReturn]) -> None:
        for done in self.executor.map(tasks):
            self._note(done)
            bar.update(min(done.units, (bar.total or 0) - bar.n))
            if self.failed:
                bar.say(f"{self.failed} failed")

    def _note(self, done: TaskOutcome) -> None:
        self.failed += len(done.failures)
        self.damaged += done.damaged
        self.bench.of_split(done.task.split).leave_out(done.left_out)

    def _items(self, images: ImageSet) -> Iterator[DatasetItem]:
        done = TaskOutcome(Task("judge", images.split, 0), damaged=self.damaged)
        for index in range(len(images)):
            item = self.worker.item(images, index, done)
            if item is not None:
                yield item

    def _calibration_items(self) -> Iterator[DatasetItem]:
        for item in self._items(self.bench.calibration):
            self.calibrated += 1
            yield item

    def _finished(self) -> int:
        """Return the number of cells that there are already."""
        found = 0
        for images, kind in ((self.bench.calibration, True), (self.bench.test, False)):
            for row in self.bench.rows:
                if kind and not self.bench.calibrates(row):
                    continue
                cells = CellFolder(self.root, row.framework)
                names = cell_names(row, calibrating=kind)
                found += sum(
                    cells.cell_path(sample, name).exists()
                    for sample in images.samples
                    for name in names
                )
        return found

    def _choose(self) -> tuple[dict[str, Choice], dict[Row, str]]:
        """Return the calibration split's choices, and the rows for which it has no word to choose
        on, each with why."""
        choices: dict[str, Choice] = {}
        lost: dict[Row, str] = {}
        samples = self.bench.calibration.samples
        for row in self.bench.rows:
            if not self.bench.calibrates(row):
                choices[row.name] = Choice(row.variants[0])
                continue
            cells = CellFolder(self.root, row.framework, self.worker.run)
            names = cell_names(row, calibrating=True)
            scores: list[list[Score]] = []
            kept = []
            for variant, name in zip(row.variants, names, strict=True):
                read = (cells.read(sample, name) for sample in samples)
                of_variant = [score for cell in read if cell is not None for score in cell.scores]
                # What failed wherever there was a word to score can't be chosen.
                if has_headline_word(of_variant):
                    scores.append(of_variant)
                    kept.append(variant)
            if kept:
                among = replace(row, variants=tuple(kept))
                choice = choose(among, scores, seed=self.bench.plan.seed)
                # Where nothing is cut, another threshold doesn't make another score.
                cut = self.bench.cuts(row)
                choices[row.name] = choice if cut else Choice(choice.variant)
            else:
                lost[row] = self._why_lost(row, names)
        if not choices:
            first = next(iter(failures.recorded(self.root)), None)
            if first is None:
                raise ValueError(nothing_to_choose_on("options of any method"))
            raise ValueError(
                "every cell of the calibration split that has a word to choose a threshold on "
                f"failed; the first: {first}"
            )
        return choices, lost

    def _why_lost(self, row: Row, names: Sequence[str]) -> str:
        failed = sum(
            failures.is_recorded(self.root, row.framework, sample, name)
            for sample in self.bench.calibration.samples
            for name in names
        )
        if failed:
            cells = counted(failed, "calibration cell")
            return f"no word is left to choose its threshold on: {cells} failed"
        return (
            "no word to choose its threshold on: no calibration image shows another object, whose "
            "map it would take"
        )

    def _conclude(
        self,
        choices: Mapping[str, Choice],
        lost: Mapping[Row, str],
        ceiling_at: Thresholds | None,
    ) -> Comparison:
        bench, root, plan = self.bench, self.root, self.bench.plan
        first = bench.backends[0]
        surveys = Surveys(root, bench.test.samples, self.worker.run)
        rows = tuple(row for row in bench.rows if row.name in choices)
        results, other, tests = summarise(rows, bench, choices, self._cell, surveys)
        ceiling, other_ceiling = summarise_ceiling(bench.of_masks, surveys)
        judged = sum(1 for _ in surveys)
        trajectory = next(self._items(bench.test)).trajectory
        comparison = Comparison(
            results=results,
            other=other,
            ceiling=ceiling,
            other_ceiling=other_ceiling,
            table_rows=rows,
            choices=dict(choices),
            ceiling_threshold=math.nan if ceiling_at is None else ceiling_at.normalised,
            tests=tests,
            metrics=(*bench.metrics, *cost.METRICS),
            facts=ComparisonFacts(
                model_id=first.model_id,
                revision=self.settings["revision"],
                framework=first.framework,
                device=self.settings["device"],
                seed=plan.seed,
                n=judged,
                calibration=self.calibrated,
                steps=trajectory.at_steps(plan.steps),
                sampling_steps=trajectory.steps,
                accounting=account(surveys),
                calibration_accounting=self.accounting,
                budget=plan.budget,
                data=describe(bench.test, len(bench.test) - judged),
                headline=headline_words(bench.test),
                not_measured=(
                    *bench.not_measured,
                    *((row.label, why) for row, why in lost.items()),
                ),
                frameworks=bench.frameworks,
                unmeasured=bench.unmeasured,
                words=sum(word.kind == HEADLINE for survey in surveys for word in survey.words),
            ),
            out=root,
            failures=tuple(replace(one, trace="") for one in failures.recorded(root)),
            lost=tuple(row.name for row in lost),
        )
        scores = (self._scores(row, sample) for row in rows for sample in bench.test.samples)
        done = TaskOutcome(Task("judge", bench.test.split, 0), damaged=self.damaged)

        def maps(row: Row, item: DatasetItem) -> AttributionMaps:
            variant = choices[row.name].variant
            kept = CellFolder(root, row.framework).maps_path(item.sample, variant.cell)
            return self.worker.attempt(lambda: variant.source.maps(item, kept), done)

        write_reports(comparison, scores, surveys, self._items(bench.test), maps)
        # The picture reads images and maps that nothing else may have.
        return replace(comparison, damaged=tuple(self.damaged))

    def _scores(self, row: Row, sample: str) -> Sequence[Score]:
        """A finished cell's scores; none of one that failed."""
        return self._cell(row, sample).scores

    def _cell(self, row: Row, sample: str) -> Cell:
        """A finished cell, as far as it is of this run's metrics; an empty one of one that
        failed."""
        cells = CellFolder(self.root, row.framework, self.worker.run)
        cell = cells.read(sample, row.name)
        if cell is None:
            return Cell(())
        wanted = identities(self.bench.metrics_of(row))
        return replace(cell, scores=tuple(cell.of(wanted)))

    def _bar(self, what: str, total: int, finished: int, unit: str) -> ProgressBar[NoReturn]:
        bar: ProgressBar[NoReturn] = ProgressBar(
            desc=what, total=total, initial=finished, unit=unit, disable=not self.progress
        )
        return bar
