"""Cells that failed: recorded beside the results, so that the run goes on without them."""

from __future__ import annotations

import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from wordlight.comparisons.store.cells import check_name
from wordlight.comparisons.store.json_file import read_json, write_json

FOLDER = "failed"


@dataclass(frozen=True)
class Failure:
    """A cell that couldn't be made, and why: the error's kind, its message, where it was raised."""

    framework: str
    sample: str
    method: str
    error: str
    message: str
    trace: str = ""

    @classmethod
    def of(cls, framework: str, sample: str, method: str, error: BaseException) -> Failure:
        """Return a record of an exception."""
        trace = "".join(traceback.format_exception(error))
        name = type(error).__name__
        return cls(framework, sample, method, name, " ".join(str(error).split()), trace)

    def __str__(self) -> str:
        return f"{self.method} of {self.sample} ({self.framework}): {self.error}: {self.message}"


def record(root: Path, failure: Failure) -> None:
    """Write the failure into a run's folder, by atomic rename."""
    path = _path(root, failure.framework, failure.sample, failure.method)
    write_json(path, asdict(failure), indent=2)


def is_recorded(root: Path, framework: str, sample: str, method: str) -> bool:
    """Return whether this cell failed before."""
    return _path(root, framework, sample, method).exists()


def recorded(root: Path) -> list[Failure]:
    """Every failure of a run; raises ValueError for a record that can't be read."""
    found = []
    for path in sorted((root / FOLDER).glob("*/*/*.json")):
        try:
            found.append(Failure(**read_json(path)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is no record of a failure ({error}): delete it") from None
    return found


def forget(root: Path) -> None:
    """Remove every record, so that the cells are tried again."""
    for path in (root / FOLDER).glob("*/*/*.json"):
        path.unlink()
    for folder in sorted((root / FOLDER).glob("**/"), reverse=True):
        folder.rmdir()


def _path(root: Path, framework: str, sample: str, method: str) -> Path:
    return root / FOLDER / framework / sample / f"{check_name(method)}.json"
