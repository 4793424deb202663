"""``compare``: the whole way from prompts to a table, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

import wordlight
from wordlight.backends.backend import Backend
from wordlight.backends.segmenters.segmenter import Segmenter
from wordlight.comparisons.budget import Workload
from wordlight.comparisons.calibration import Choice, ceiling_thresholds, choose
from wordlight.comparisons.ceiling import mask_on_grid
from wordlight.comparisons.cells import CellFolder, Score
from wordlight.comparisons.comparison import (
    Comparison,
    Facts,
    check_headline,
    summarise,
    summarise_ceiling,
)
from wordlight.comparisons.datasets import Accounting, Dataset, DatasetItem
from wordlight.comparisons.datasets.dataset import OnError
from wordlight.comparisons.entries import Entry, Methods, build_entries
from wordlight.comparisons.images import (
    ImageSet,
    data_settings,
    describe,
    headline_words,
    open_images,
)
from wordlight.comparisons.judging import calibration_cell, judged_cell
from wordlight.comparisons.output_folder import claimed
from wordlight.comparisons.reports import write_reports
from wordlight.comparisons.segmentation import METRICS, THRESHOLD_GRID
from wordlight.comparisons.settings_file import (
    Settings,
    forget_settings,
    holds_same_run,
    write_settings,
)
from wordlight.comparisons.supervised import mask_maker, supervised_rows


def compare(
    backend: Backend | str = "scenes",
    methods: Methods | None = None,
    *,
    out: str | Path,
    data: str | Path | Dataset = "scenes",
    on_error: OnError = "raise",
    redraw: bool = False,
    masks: str | Segmenter | None = None,
    segmenters: Mapping[str, str | Segmenter] | None = None,
    n: int = 32,
    seed: int = 0,
    steps: int = 4,
    calibration: int = 16,
    maps: Mapping[str, str | Path] | None = None,
    budget: int | None = None,
    framework: str = "torch",
    device: str | None = None,
    progress: bool = True,
) -> Comparison:
    """Score attribution methods against each other, on images that a model draws or on a data set.

    By default prompts are those of ``scenes``, and masks come from the pixels of what the model
    drew. What can
    be chosen (each row's threshold, the centre's width) is chosen on the calibration split; the
    test split is read once. A run that was stopped goes on where it was when it is called again
    with the same settings.

    Args:
        backend: a model, or the name of one as ``load`` takes it.
        methods: names, attributors, or attributors by names of their own; the default ones for
            None. ``"shuffled-word"`` adds a row for each method that is no control.
        out: the folder of the results: ``results.parquet`` and the cells it is made of, the maps,
            the images, the tables, and a picture of them.
        data: ``"scenes"``, or a data set, as ``open_dataset`` takes it.
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
        steps: how many evenly spaced denoising steps every named method looks at.
        calibration: images of the calibration split.
        maps: rows of precomputed maps: a folder by name, with a ``<sample>.safetensors`` for
            every image of both splits, as ``AttributionMaps.save`` writes it.
        budget: the most that an image may cost, in forward-equivalents: every method gets the most
            effort (``n_steps``, ``n_samples``, ...) for which no image of the run costs more.
        framework, device: for a model that is named.
        progress: whether to show bars on stderr.

    Returns:
        The estimates; ``print`` shows them as a table.

    Raises:
        ValueError: bad arguments, ``out`` holding a run with other settings, a damaged file
            there, images without a word to score, methods that the budget doesn't pay for.
        OSError: a folder that can't be read or written.
    """
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, not {steps}")
    model = _loaded(backend, framework, device)
    maker = mask_maker(masks, device)
    sets = open_images(
        data,
        model,
        calibration=calibration,
        n=n,
        seed=seed,
        on_error=on_error,
        segmenter=maker,
        redraw=redraw,
    )
    samples = [name for one in sets for name in one.samples]
    folders = {name: Path(folder) for name, folder in (maps or {}).items()}
    workload = None
    if budget is not None:
        prompts = [prompt for one in sets for prompt in one.prompts]
        workload = Workload.of(model, prompts)
    entries = build_entries(model, methods, folders, samples, steps, budget, workload)
    supervised, not_measured = supervised_rows(
        segmenters or {}, maker, [entry.name for entry in entries], device
    )
    entries = tuple(sorted((*entries, *supervised), key=lambda entry: entry.extra))
    settings: Settings = {
        "wordlight": wordlight.__version__,
        "model": model.model_id,
        "revision": model.revision,
        "framework": model.framework,
        "device": model.device,
        "dtype": model.dtype,
        "data": data_settings(*sets),
        "n": n,
        "calibration": calibration,
        "seed": seed,
        "steps": steps,
        "thresholds": list(THRESHOLD_GRID),
        "metrics": list(METRICS),
        "methods": {entry.name: entry.settings() for entry in entries},
    }
    if budget is not None:
        settings["budget"] = budget
    if not_measured:
        settings["not measured"] = [name for name, _ in not_measured]
    root = Path(out)
    with claimed(root):
        if holds_same_run(root, settings):
            _sweep(root)
        else:
            _try_first_image(sets[0], steps)
            write_settings(root, settings)
        with _bar("drawing images", len(samples), progress) as bar:
            tuning, test = (one.items(root / "samples", bar.update) for one in sets)
        try:
            of_ceiling = ceiling_thresholds(tuning)
            check_headline(test)
        except ValueError:
            # Such images can't be judged on: they don't stand in the way of other settings.
            for one in sets:
                one.forget(root / "samples")
            forget_settings(root)
            raise
    if budget is not None:
        _check_budget(entries, budget, [*tuning, *test])
    cells = CellFolder(root, model.framework)
    with _bar("making maps", len(samples), progress) as bar:
        choices = _calibrate(cells, tuning, entries, bar)
        scores = _judge(cells, test, entries, choices, bar)
    rows, other, tests = summarise(entries, scores, test, seed)
    ceiling, other_ceiling = summarise_ceiling(test, of_ceiling, seed)
    trajectory = test[0].trajectory
    comparison = Comparison(
        rows=rows,
        other=other,
        ceiling=ceiling,
        other_ceiling=other_ceiling,
        entries=entries,
        choices=choices,
        ceiling_threshold=of_ceiling.normalised,
        tests=tests,
        facts=Facts(
            model_id=model.model_id,
            revision=model.revision,
            framework=model.framework,
            device=model.device,
            seed=seed,
            n=len(test),
            calibration=len(tuning),
            steps=trajectory.at_steps(steps),
            sampling_steps=trajectory.steps,
            accounting=Accounting.of(test),
            calibration_accounting=Accounting.of(tuning),
            budget=budget,
            data=describe(sets[1]),
            headline=headline_words(sets[1]),
            not_measured=not_measured,
        ),
        out=root,
    )
    write_reports(comparison, scores, test, cells)
    return comparison


def _loaded(backend: Backend | str, framework: str, device: str | None) -> Backend:
    if isinstance(backend, Backend):
        return backend
    # Frameworks are imported when a model is loaded, and not before.
    from wordlight.backends.loading import load

    loaded: Backend = load(backend, framework=framework, device=device)
    return loaded


def _sweep(root: Path) -> None:
    """Remove what a run that was killed had begun to write; a folder is one run's at a time."""
    begun = [*root.glob(".*.partial")]
    for ours in ("cells", "maps", "samples"):
        begun += (root / ours).rglob(".*.partial")
    for path in begun:
        path.unlink()


def _try_first_image(images: ImageSet, steps: int) -> None:
    """Raises ValueError for a step set or an image size that can't be, before anything is kept."""
    trajectory = images.first_batch[0]
    trajectory.at_steps(steps)
    height, width = trajectory.image.shape[:2]
    blank = trajectory.image[..., 0] > 255
    try:
        mask_on_grid(blank, trajectory.grid)
    except ValueError:
        raise ValueError(
            f"{images.backend.model_id} draws {height}x{width} pixels on latents of "
            f"{trajectory.grid[0]}x{trajectory.grid[1]}, which don't divide them"
        ) from None


def _check_budget(entries: Sequence[Entry], budget: int, items: Sequence[DatasetItem]) -> None:
    """Raises ValueError where images turn out larger than was foreseen when efforts were chosen, or
    maps from files say that they cost more."""
    for entry in entries:
        for item in items:
            method = entry.method
            if method is None:
                cost = entry.variants[0].source.maps(item, Path()).provenance.forward_equivalents
            else:
                cost = method.cost(method.size_of(item.trajectory)).forward_equivalents
            if cost > budget:
                raise ValueError(
                    f"{entry.label} costs {cost} forward-equivalents for {item.sample}, and the "
                    f"budget is {budget}"
                )


def _calibrate(
    cells: CellFolder, items: Sequence[DatasetItem], entries: Sequence[Entry], bar: tqdm[NoReturn]
) -> dict[str, Choice]:
    scores: dict[str, list[list[Score]]] = {e.name: [[] for _ in e.variants] for e in entries}
    for item in items:
        for entry in entries:
            for variant, of_variant in zip(entry.variants, scores[entry.name], strict=True):
                of_variant += calibration_cell(cells, item, entry, variant)
        bar.update()
    return {entry.name: choose(entry, scores[entry.name]) for entry in entries}


def _judge(
    cells: CellFolder,
    items: Sequence[DatasetItem],
    entries: Sequence[Entry],
    choices: Mapping[str, Choice],
    bar: tqdm[NoReturn],
) -> dict[str, list[Score]]:
    scores: dict[str, list[Score]] = {entry.name: [] for entry in entries}
    for item in items:
        for entry in entries:
            choice = choices[entry.name]
            scores[entry.name] += judged_cell(cells, item, entry, choice.variant, choice.thresholds)
        bar.update()
    return scores


def _bar(what: str, total: int, progress: bool) -> tqdm[NoReturn]:
    bar: tqdm[NoReturn] = tqdm(desc=what, total=total, unit="image", disable=not progress)
    return bar
