"""Results on disk: one small Parquet file for each (framework, sample, method), whole or absent."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from wordlight.backends.arrays_file import write_atomically

FORWARD_EQUIVALENTS = "forward-equivalents"
SECONDS = "seconds"
#: Metrics of an image, not of a word: ``word`` is "" and ``occurrence`` -1.
COST_METRICS = (FORWARD_EQUIVALENTS, SECONDS)

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
    """The files of a run's cells and maps, under one folder."""

    root: Path
    framework: str

    def cell_path(self, sample: str, method: str) -> Path:
        """Where a cell's scores are."""
        name = f"{check_name(method)}.parquet"
        return self.root / "cells" / self.framework / sample / name

    def maps_path(self, sample: str, method: str) -> Path:
        """Where the maps are that a cell's scores are of."""
        name = f"{check_name(method)}.safetensors"
        return self.root / "maps" / self.framework / sample / name

    def write(self, sample: str, method: str, scores: Sequence[Score]) -> None:
        """Write a finished cell, by atomic rename."""
        if any(
            (s.framework, s.sample, s.method) != (self.framework, sample, method) for s in scores
        ):
            raise ValueError("a cell's scores must all be of its framework, sample and method")
        write_scores(self.cell_path(sample, method), scores)

    def read(self, sample: str, method: str) -> list[Score] | None:
        """A cell's scores, or None where it isn't finished.

        Raises ValueError when the file is damaged or of another cell.
        """
        path = self.cell_path(sample, method)
        if not path.exists():
            return None
        scores = read_scores(path)
        if any(
            (s.framework, s.sample, s.method) != (self.framework, sample, method) for s in scores
        ):
            raise ValueError(
                f"{path} holds scores of another cell; delete it, and it is computed again"
            )
        return scores


def write_scores(path: Path, scores: Sequence[Score]) -> None:
    """Write scores to one Parquet file, by atomic rename."""
    rows = [vars(score) for score in scores]
    buffer = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), buffer)
    write_atomically(path, buffer.getvalue())


def read_scores(path: Path) -> list[Score]:
    """Read what ``write_scores`` wrote; raises ValueError on anything else."""
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} is damaged or truncated ({error}); delete it, and it is computed again"
        ) from None
    if not table.schema.equals(SCHEMA):
        raise ValueError(
            f"{path} has the columns {', '.join(table.schema.names)}, and not those of a cell; "
            "delete it, and it is computed again"
        )
    return [Score(**row) for row in table.to_pylist()]
