"""Results on disk: one small Parquet file for each (framework, sample, method), whole or absent."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wordlight.backends.arrays_file import write_atomically

FORWARD_EQUIVALENTS = "forward-equivalents"
SECONDS = "seconds"
PEAK_BYTES = "peak-bytes"
COMPLETENESS = "completeness-error"
#: Metrics of an image, not of a word: ``word`` is "" and ``occurrence`` -1.
COST_METRICS = (FORWARD_EQUIVALENTS, SECONDS, PEAK_BYTES, COMPLETENESS)
#: Those that not every run can tell: columns of nothing are left out.
SOMETIMES = (PEAK_BYTES, COMPLETENESS)

SCHEMA = pa.schema(
    [
        ("framework", pa.string()),
        ("sample", pa.string()),
        ("method", pa.string()),
        ("word", pa.string()),
        ("occurrence", pa.int64()),
        ("metric", pa.string()),
        ("value", pa.float64()),
    ]
)

#: Where a cell's file says which run it is of.
_RUN = b"wordlight.run"
#: And its checksum: the pages' own don't cover what says how to read them.
_CHECKSUM = b"wordlight.checksum"
#: Where it says what had been chosen for its row: a list in JSON.
_CHOICE = b"wordlight.choice"
#: And by which metrics its maps were judged: their identities by name, in JSON.
_METRICS = b"wordlight.metrics"
#: And the IoU of each word at every threshold that might have been chosen, in JSON.
_CURVES = b"wordlight.curves"

#: How many rows of the results are held at a time.
_ROWS_HELD = 10_000

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]*")


@dataclass(frozen=True)
class Score:
    """One value: a metric of a word, or of an image (``word`` "", ``occurrence`` -1)."""

    framework: str
    sample: str
    method: str
    word: str
    occurrence: int
    metric: str
    value: float


@dataclass(frozen=True)
class Cell:
    """The scores of one image's maps by one row.

    Attributes:
        scores: the values.
        choice: the calibration split's choice for the row, as plain data: the variant's
            name, and the thresholds where there were some; nothing on that split.
        metrics: by which metrics the maps were judged, with their identities: one whose values
            aren't defined has no scores.
        curves: the IoU of each word, by name and occurrence, at every threshold of the normalised
            maps that might have been chosen; where one was chosen, and on the test split alone.
    """

    scores: tuple[Score, ...]
    choice: tuple[str | float, ...] = ()
    metrics: Mapping[str, str] = field(default_factory=dict)
    curves: Mapping[tuple[str, int], tuple[float, ...]] = field(default_factory=dict)

    def missing_metrics(self, wanted: Mapping[str, str]) -> set[str]:
        """Return the metrics that it wasn't judged by."""
        return {name for name, identity in wanted.items() if self.metrics.get(name) != identity}

    def of(self, wanted: Mapping[str, str]) -> list[Score]:
        """The scores by these metrics."""
        there = wanted.keys() - self.missing_metrics(wanted)
        return [score for score in self.scores if score.metric in there]


class DamagedFileError(ValueError):
    """A file of a run isn't what the run wrote there; without it, it is made again."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{what}; delete it, and it is computed again")
        self.path, self._what = path, what

    def __reduce__(self) -> tuple[type[DamagedFileError], tuple[Path, str]]:
        # Workers in other processes raise it too.
        return type(self), (self.path, self._what)


def check_name(name: str) -> str:
    """The name itself, if it can be a file's name everywhere; raises ValueError otherwise."""
    if not _FILE_NAME.fullmatch(name) or len(name) > 100:
        raise ValueError(
            f"{name!r} can't name a method: letters, digits and . _ @ + - only, beginning with a "
            "letter or digit, 100 at most"
        )
    return name


@dataclass(frozen=True)
class CellFolder:
    """The files of a run's cells and maps, under one folder.

    ``run`` is the hash of the run's settings: it stands in every cell, and a cell of another run is
    refused.
    """

    root: Path
    framework: str
    run: str = ""

    def cell_path(self, sample: str, method: str) -> Path:
        """Return the path of a cell's scores."""
        name = f"{check_name(method)}.parquet"
        return self.root / "cells" / self.framework / sample / name

    def maps_path(self, sample: str, method: str) -> Path:
        """Return the path of the maps that a cell's scores are of."""
        name = f"{check_name(method)}.safetensors"
        return self.root / "maps" / self.framework / sample / name

    def write(self, sample: str, method: str, cell: Cell) -> None:
        """Write a cell, by atomic rename."""
        if any(
            (s.framework, s.sample, s.method) != (self.framework, sample, method)
            for s in cell.scores
        ):
            raise ValueError("a cell's scores must all be of its framework, sample and method")
        curves = [[word, place, curve] for (word, place), curve in cell.curves.items()]
        about = {
            _CHOICE: json.dumps(cell.choice),
            _METRICS: json.dumps(cell.metrics),
            _CURVES: json.dumps(curves),
        }
        write_scores(self.cell_path(sample, method), cell.scores, self.run, about)

    def read(self, sample: str, method: str) -> Cell | None:
        """A cell, or None where there is none.

        Raises DamagedFileError when the file is damaged, or of another cell or run.
        """
        path = self.cell_path(sample, method)
        if not path.exists():
            return None
        scores, about = _read(path, self.run)
        if any(
            (s.framework, s.sample, s.method) != (self.framework, sample, method) for s in scores
        ):
            raise DamagedFileError(path, f"{path} holds scores of another cell")
        try:
            choice, metrics = json.loads(about[_CHOICE]), json.loads(about[_METRICS])
            # A cell of an earlier release has none, and lacks them by its metrics.
            curves = {
                (str(word), int(place)): tuple(map(float, curve))
                for word, place, curve in json.loads(about.get(_CURVES, b"[]"))
            }
        except (KeyError, TypeError, ValueError):
            raise DamagedFileError(path, f"{path} doesn't say how it was judged") from None
        return Cell(tuple(scores), tuple(choice), metrics, curves)


def count_cells(root: Path) -> int:
    """Return the number of a run's finished cells."""
    return sum(1 for _ in (root / "cells").glob("*/*/*.parquet"))


def write_scores(
    path: Path, scores: Sequence[Score], run: str = "", about: Mapping[bytes, str] | None = None
) -> None:
    """Write scores to one Parquet file, by atomic rename; ``about`` stands in its metadata."""
    said = {_RUN: run.encode()} if run else {}
    said |= {key: text.encode() for key, text in (about or {}).items()}
    said[_CHECKSUM] = _checksum(scores, said)
    schema = SCHEMA.with_metadata(said)
    rows = [vars(score) for score in scores]
    buffer = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, write_page_checksum=True)
    write_atomically(path, buffer.getvalue())


def _checksum(scores: Iterable[Score], said: Mapping[bytes, bytes]) -> bytes:
    """SHA-256 of scores, to the last bit, and of what their file says of them."""
    digest = hashlib.sha256()
    for key in sorted(said):
        if key.startswith(b"wordlight.") and key != _CHECKSUM:
            digest.update(key + b"\0" + said[key] + b"\0")
    for score in scores:
        # The values are plain, so that nothing has to be copied as `astuple` does.
        values = tuple(vars(score).values())
        digest.update(repr(values).encode("utf-8", "surrogatepass"))
    return digest.hexdigest().encode()


def write_results(path: Path, parts: Iterable[Sequence[Score]]) -> None:
    """Write the scores of many cells to one Parquet file, a part at a time, by atomic rename."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with pq.ParquetWriter(partial, SCHEMA, write_page_checksum=True) as writer:
            rows: list[dict[str, object]] = []
            for part in parts:
                rows += [vars(score) for score in part]
                if len(rows) >= _ROWS_HELD:
                    writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
                    rows = []
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_scores(path: Path, run: str = "", metric: str | None = None) -> list[Score]:
    """Read what ``write_scores`` wrote, of one metric alone where it is named.

    Raises DamagedFileError on anything else, and on scores of another run than ``run``; OSError for
    a file that can't be opened, which isn't damaged.
    """
    return _read(path, run, metric)[0]


def _read(
    path: Path, run: str = "", metric: str | None = None
) -> tuple[list[Score], Mapping[bytes, bytes]]:
    """Return the scores of ``read_scores``, and what the file says of them: both of one reading,
    since Parquet keeps its metadata twice and a checksum is of one of them."""
    try:
        if metric is None:
            table = pq.ParquetFile(path, page_checksum_verification=True).read()
        else:
            # Without a partitioning: folders called `seed=1` would become columns.
            wanted = pc.field("metric") == metric
            table = pq.read_table(
                path, filters=wanted, partitioning=None, page_checksum_verification=True
            )
    except Exception as error:
        # Arrow's own errors of damaged files are OSError too, without a number.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DamagedFileError(path, f"{path} is damaged or truncated ({error})") from None
    if not table.schema.equals(SCHEMA):
        columns = ", ".join(table.schema.names)
        raise DamagedFileError(path, f"{path} has the columns {columns}, and not those of a cell")
    said = table.schema.metadata or {}
    if run and said.get(_RUN) != run.encode():
        raise DamagedFileError(path, f"{path} is of a run with other settings")
    try:
        scores = [Score(**row) for row in table.to_pylist()]
    except UnicodeDecodeError as error:
        # Texts are decoded here, and not when they are read.
        raise DamagedFileError(path, f"{path} is damaged ({error})") from None
    if run and said.get(_CHECKSUM) != _checksum(scores, said):
        raise DamagedFileError(path, f"{path} is damaged: its checksum is of other scores")
    return scores, said


def run_of_cell(path: Path) -> str | None:
    """The hash of the settings that a cell's file says it was made with; None for a damaged one."""
    try:
        return (pq.read_schema(path).metadata or {}).get(_RUN, b"").decode() or None
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return None
