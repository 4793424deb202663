"""Folders of runs: which there are, how far each is, and how two of them differ."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wordlight.comparisons.metrics.segmentation import BEST
from wordlight.comparisons.runs.image_words import FOLDER as SURVEYS
from wordlight.comparisons.runs.image_words import Survey
from wordlight.comparisons.stats.intervals import SHARE, Estimate, mean_over_words
from wordlight.comparisons.store import failures
from wordlight.comparisons.store.cells import count_cells, read_scores
from wordlight.comparisons.store.json_file import read_json
from wordlight.comparisons.store.lock import is_locked
from wordlight.comparisons.store.settings_file import NAME, Settings, differences, read_settings


@dataclass(frozen=True)
class RunInfo:
    """A run as its folder tells it.

    Attributes:
        folder: its folder.
        started: when, in UTC.
        model, frameworks, data, n: the comparison's settings.
        methods: the names of the rows.
        cells: the number of its cells; None where its folder doesn't say.
        made: the number of finished cells.
        failed: the number of failed cells.
        state: ``"finished"``, ``"running"``, ``"stopped"`` or ``"failed cells"``.
        versions: of the packages, when it was started.
        settings: all of them.
    """

    folder: str
    started: str
    model: str
    frameworks: tuple[str, ...]
    data: Any
    n: int
    methods: tuple[str, ...]
    cells: int | None
    made: int
    failed: int
    state: str
    versions: dict[str, str]
    settings: Settings

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def find_runs(folder: Path) -> Iterator[Path]:
    """The folders of runs in and below a folder, by name; nothing inside a run is looked at.

    Raises ValueError where there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    for place, below, files in os.walk(folder):
        below.sort()
        if NAME in files:
            below.clear()
            yield Path(place)


def read_run(folder: Path) -> RunInfo:
    """Return a folder's run; raises ValueError where it holds none, or a damaged one."""
    settings, about = read_settings(folder)
    made = count_cells(folder)
    failed = sum(1 for _ in (folder / failures.FOLDER).glob("*/*/*.json"))
    cells = about.get("cells")
    if is_locked(folder):
        state = "running"
    elif failed:
        state = "failed cells"
    elif made == _concluded_with(folder, cells):
        state = "finished"
    else:
        state = "stopped"
    others = settings.get("other frameworks", {})
    try:
        return RunInfo(
            folder=str(folder),
            started=str(about.get("started", "")),
            model=str(settings["model"]),
            frameworks=(str(settings["framework"]), *map(str, others)),
            data=settings["data"],
            n=int(settings["n"]),
            methods=tuple(map(str, settings["methods"])),
            cells=None if cells is None else int(cells),
            made=made,
            failed=failed,
            state=state,
            versions=dict(about.get("versions", {})),
            settings=settings,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / NAME} isn't a comparison's ({error})") from None


def _concluded_with(folder: Path, planned: Any) -> int | None:
    """Return the number of a run's cells when its tables were made (as many as were planned, where
    they don't say); None where there are no tables, or where some cells had failed."""
    try:
        summary = read_json(folder / "summary.json")
        return None if summary["failed"] else int(summary.get("cells", planned))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_table(folder: Path) -> str | None:
    """A run's table, as its folder keeps it; None where it has none yet."""
    path = folder / "table.txt"
    return path.read_text(encoding="utf-8").rstrip() if path.exists() else None


@dataclass(frozen=True)
class MethodDifference:
    """A row's headline mIoU in two runs, and the second's less the first's.

    ``difference`` has a paired interval where both were judged on the same words of the same
    images, and is None where they weren't.
    """

    method: str
    first: Estimate
    second: Estimate
    difference: Estimate | None


@dataclass(frozen=True)
class RunsDifference:
    """The difference of two runs: settings, images, and the rows that both have.

    ``same_images`` says how many images both were judged on, pixel for pixel.
    """

    settings: tuple[str, ...]
    same_images: int
    images: tuple[int, int]
    methods: tuple[MethodDifference, ...]
    only: tuple[tuple[str, ...], tuple[str, ...]]

    def to_json(self) -> dict[str, Any]:
        """Plain data; what can't be estimated is null."""
        return _without_nan(asdict(self))  # type: ignore[no-any-return]


def compare_runs(first: Path, second: Path) -> RunsDifference:
    """Return the difference of the second run from the first.

    Intervals are of the paired differences, over the images that both have.

    Raises ValueError where a folder holds no run, or one without results.
    """
    (settings, _), (others, _) = read_settings(first), read_settings(second)
    found = tuple(differences(settings, others))
    surveys = [_surveys(folder) for folder in (first, second)]
    shared = {
        sample
        for sample in surveys[0].keys() & surveys[1].keys()
        if surveys[0][sample] == surveys[1][sample]
    }
    one, two = _headline(first), _headline(second)
    methods = []
    for method in one:
        if method not in two:
            continue
        both = sorted(k for k in one[method].keys() & two[method].keys() if k[0] in shared)
        paired = [two[method][key] - one[method][key] for key in both]
        methods.append(
            MethodDifference(
                method,
                _mean(one[method]),
                _mean(two[method]),
                mean_over_words([key[0] for key in both], paired) if both else None,
            )
        )
    only = (
        tuple(name for name in one if name not in two),
        tuple(name for name in two if name not in one),
    )
    images = (len(surveys[0]), len(surveys[1]))
    return RunsDifference(found, len(shared), images, tuple(methods), only)


_Key = tuple[str, str, int]


def _mean(values: dict[_Key, float]) -> Estimate:
    keys = sorted(values)
    scores = [values[key] for key in keys]
    return mean_over_words([key[0] for key in keys], scores, bounds=SHARE)


def _surveys(folder: Path) -> dict[str, str]:
    """The digest of every image that a run was judged on, by sample."""
    found = (Survey.read(path) for path in sorted((folder / SURVEYS).glob("*.json")))
    return {survey.sample: survey.image for survey in found}


def _headline(folder: Path) -> dict[str, dict[_Key, float]]:
    """The headline scores of a run, by row, image and word."""
    path = folder / "results.parquet"
    if not path.exists():
        raise ValueError(f"{folder} has no results yet: its run isn't finished")
    kinds = {
        (survey.sample, word.word, word.occurrence)
        for survey in (Survey.read(p) for p in sorted((folder / SURVEYS).glob("*.json")))
        for word in survey.words
        if word.kind == "headline"
    }
    found: dict[str, dict[_Key, float]] = {}
    for score in read_scores(path, metric=BEST):
        key = (score.sample, score.word, score.occurrence)
        if key in kinds:
            found.setdefault(score.method, {})[key] = score.value
    return found


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def one_line(run: RunInfo) -> list[str]:
    """A run as a line of a table: see ``COLUMNS``."""
    of = "" if run.cells is None else f" of {run.cells}"
    cells = "cell" if run.cells == 1 else "cells"
    state = run.state if run.state == "finished" else f"{run.state}: {run.made}{of} {cells}"
    if run.failed:
        state += f", {run.failed} failed"
    shown = ", ".join(run.methods[:4]) + (
        f" and {len(run.methods) - 4} more" if len(run.methods) > 4 else ""
    )
    model = f"{run.model} ({', '.join(run.frameworks)})"
    return [run.folder, run.started, model, str(run.n), state, shown]


#: Of ``one_line``.
COLUMNS = ["folder", "started (UTC)", "model", "images", "state", "rows"]


def dump(value: Any) -> str:
    """Plain data as text."""
    return json.dumps(value, indent=2, sort_keys=True)
