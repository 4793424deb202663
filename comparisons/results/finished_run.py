"""A finished run's folder, as a report reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wordlight.comparisons.metrics.registry import available
from wordlight.comparisons.metrics.segmentation import BEST
from wordlight.comparisons.stats.intervals import SHARE, Estimate
from wordlight.comparisons.store.cells import check_name
from wordlight.comparisons.store.json_file import file_digest, read_json
from wordlight.comparisons.store.settings_file import read_settings

#: Beside the results: the command that made them, where a command did.
COMMAND = "command.txt"
#: The kind of the words that the headline is of.
HEADLINE = "headline"
_AGAIN = "run `wordlight compare` with the same settings again, which writes it anew"
_WORD = ("sample", "word", "occurrence")


_NO_ESTIMATE = Estimate(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True)
class MethodRow:
    """One row of the table: a method with its settings, and its estimates by metric.

    ``standing`` is its rank and the letters that it shares with rows from which it can't be told
    apart, or how it compares with the best row; "" for one that isn't ranked.
    """

    name: str
    label: str
    framework: str
    standing: str
    family: str
    extra: bool
    shuffled: bool
    maps: str
    threshold: float
    calibration_miou: float
    settings: dict[str, Any]
    estimates: dict[str, Estimate]
    other: dict[str, Estimate]
    main: str = BEST
    reference: bool = False

    @property
    def best(self) -> Estimate:
        """By the run's main metric: mIoU at the threshold that the calibration split chose, where
        that was measured."""
        return self.estimates.get(self.main, _NO_ESTIMATE)

    def of_kind(self, kind: str) -> Estimate:
        """The same over the words of one kind; of none where there is no such word."""
        return self.best if kind == HEADLINE else self.other.get(kind, _NO_ESTIMATE)


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run that is done.

    Attributes:
        folder: its folder.
        rows: the methods, best first; those that look at other steps come last.
        scores: the mIoU at the chosen threshold, ``(sample, method, word, occurrence, value)``,
            with ``split``, ``kind`` and ``row`` of the word.
        words: the scored words, by ``row``: ``prompt``, ``mask`` (a PNG) and the like.
        metrics: the headline's metrics, in the order in which they were measured.
        facts: each metric's own facts, by name.
        main: the metric that the rows are ordered by.
        settings: all that the maps depend on.
        summary: the run's further facts.
        command: the command line, or None where Python code asked for it.
    """

    folder: Path
    rows: tuple[MethodRow, ...]
    scores: pa.Table
    words: pa.Table
    metrics: tuple[str, ...]
    facts: dict[str, dict[str, Any]]
    main: str
    settings: dict[str, Any]
    summary: dict[str, Any]
    command: str | None

    @classmethod
    def read(cls, folder: Path) -> FinishedRun:
        """Read the folder of a finished run.

        Raises ValueError where there is none, or a file is damaged or of an earlier release.
        """
        for name in ("settings.json", "summary.json", "results.parquet", "words.parquet"):
            if not (folder / name).is_file():
                raise ValueError(f"{folder} holds no finished run: there is no {name} in it")
        settings, _ = read_settings(folder)
        summary = read_json(folder / "summary.json")
        try:
            metrics = tuple(dict.fromkeys(str(one["metric"]) for one in summary["headline"]))
            facts = {str(name): dict(about) for name, about in summary["metrics"].items()}
            digests = {str(name): str(digest) for name, digest in summary["files"].items()}
            main = _main(metrics, summary["tests"])
            rows = _rows(summary, main, bool(facts[main]["higher_is_better"]))
            summary = {
                **summary,
                "notes": [str(note) for note in summary["notes"]],
                "versions": {str(k): str(v) for k, v in summary["versions"].items()},
                "failed": [str(failure) for failure in summary["failed"]],
            }
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"{folder / 'summary.json'} is no summary of this release ({error!r}): {_AGAIN}"
            ) from None
        command = folder / COMMAND
        for name, digest in digests.items():
            if file_digest(folder / name) != digest:
                raise ValueError(f"{folder / name} was changed since its summary: {_AGAIN}")
        scores, words = _scores(folder)
        return cls(
            folder=folder,
            rows=rows,
            scores=scores,
            words=words,
            metrics=metrics,
            facts=facts,
            main=main,
            settings=settings,
            summary=summary,
            command=command.read_text("utf-8").strip() if command.is_file() else None,
        )

    @property
    def has_best(self) -> bool:
        """True if all rows were tested against one, and not every pair."""
        return any(row.standing == "best" for row in self.rows)

    def n_words(self, kind: str) -> int:
        """Return the number of words of a kind on which the row with most of them was scored."""
        return max((row.of_kind(kind).n for row in self.rows), default=0)

    def maps_path(self, row: MethodRow, sample: str) -> Path:
        """Return the path of a row's maps of an image, if they are kept; raises ValueError for
        names that are no file's."""
        name = f"{check_name(row.maps)}.safetensors"
        return self.path("maps", check_name(row.framework), check_name(sample), name)

    def path(self, *parts: str) -> Path:
        """A file of the run; raises ValueError for one that lies outside its folder."""
        path = self.folder.joinpath(*parts)
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise ValueError(f"{self.folder} names a file outside itself: {'/'.join(parts)!r}")
        return path


def _main(metrics: Sequence[str], tests: Mapping[str, Any]) -> str:
    return next((name for name in metrics if name in tests), metrics[0])


def _rows(summary: Mapping[str, Any], main: str, higher_is_better: bool) -> tuple[MethodRow, ...]:
    # Runs of older versions hold intervals that leave the range of a metric's values.
    bounds = {metric.name: metric.bounds for metric in available().values()}
    estimates: dict[str, dict[str, Estimate]] = {}
    standing: dict[str, str] = {}
    for one in summary["headline"]:
        if one["metric"] == main and one.get("against_best") is not None:
            standing[one["method"]] = str(one["against_best"])
        elif one["metric"] == main and one["rank"] is not None:
            tied = " tied" if one["tied"] else ""
            standing[one["method"]] = f"{int(one['rank'])}{tied} ({one['groups']})"
        metric = one["metric"]
        estimate = _estimate(one).within(bounds.get(metric, (-math.inf, math.inf)))
        estimates.setdefault(one["method"], {})[metric] = estimate
    other: dict[str, dict[str, Estimate]] = {}
    for kind, of_kind in summary["other"].items():
        for one in of_kind:
            other.setdefault(one["method"], {})[kind] = _estimate(one).within(SHARE)
    rows = [
        MethodRow(
            name=name,
            label=str(row["label"]),
            framework=str(row["framework"]),
            standing=standing.get(name, ""),
            family=str(row["family"]),
            extra=bool(row["extra"]),
            shuffled=bool(row["shuffled"]),
            maps=str(row["maps"]),
            threshold=_number(summary["chosen"][name]["threshold"]),
            calibration_miou=_number(summary["chosen"][name]["calibration_miou"]),
            settings=dict(summary["methods"][name]),
            estimates=estimates[name],
            other=other.get(name, {}),
            main=main,
            reference=bool(row["reference"]),
        )
        for name, row in summary["rows"].items()
    ]

    def place(row: MethodRow) -> tuple[bool, float]:
        mean = row.best.mean
        return row.extra, math.inf if math.isnan(mean) else -mean if higher_is_better else mean

    return tuple(sorted(rows, key=place))


def _estimate(row: Mapping[str, Any]) -> Estimate:
    mean, low, high = (_number(row[name]) for name in ("mean", "low", "high"))
    return Estimate(mean, low, high, int(row["n"]))


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _scores(folder: Path) -> tuple[pa.Table, pa.Table]:
    """Only the rows of one metric are ever in memory."""
    columns = ["sample", "method", "word", "occurrence", "value"]
    wanted = pc.field("metric") == BEST
    try:
        scores = pq.read_table(folder / "results.parquet", columns=columns, filters=wanted)
        words = pq.read_table(folder / "words.parquet")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"the results in {folder} are damaged ({error}): {_AGAIN}") from None
    lacking = {"sample", "split", "prompt", "word", "occurrence", "spans", "kind", "mask"} - set(
        words.schema.names
    )
    if lacking:
        raise ValueError(
            f"{folder / 'words.parquet'} is of an earlier release, without {sorted(lacking)[0]}: "
            f"{_AGAIN}"
        )
    # Masks stay where they are: a word's row says which is its own.
    words = words.append_column("row", pa.array(range(len(words)), pa.int64()))
    keys = words.select([*_WORD, "row", "split", "kind"])
    joined = scores.join(keys, list(_WORD), join_type="inner")
    if len(joined) != len(scores):
        raise ValueError(f"{folder} has scores of words that aren't in words.parquet: {_AGAIN}")
    return joined.sort_by([(name, "ascending") for name in ("method", *_WORD)]), words
