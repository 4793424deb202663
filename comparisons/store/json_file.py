"""JSON of a run, with a checksum: what a disk or a hand changed isn't read as something else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wordlight.backends.arrays_file import write_atomically
from wordlight.backends.regular_files import open_regular, read_json_file
from wordlight.comparisons.store.cells import DamagedFileError

_CHECKSUM = "checksum"


def write_json(path: Path, data: Mapping[str, Any], indent: int | None = None) -> None:
    """Write an object with its checksum, by atomic rename."""
    text = json.dumps({**data, _CHECKSUM: checksum(data)}, indent=indent)
    write_atomically(path, f"{text}\n".encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read what ``write_json`` wrote.

    Raises DamagedFileError on anything else, OSError for a file that can't be opened.
    """
    try:
        data = read_json_file(path)
    except OSError:
        raise
    except ValueError as error:
        raise DamagedFileError(path, f"{path} is damaged ({error})") from None
    if not isinstance(data, dict):
        raise DamagedFileError(path, f"{path} is damaged: it holds no object")
    if _CHECKSUM not in data:
        raise DamagedFileError(
            path, f"{path} has no checksum: it is damaged, or of an earlier release"
        )
    if data.pop(_CHECKSUM) != checksum(data):
        raise DamagedFileError(path, f"{path} is damaged: its checksum is of other contents")
    return data


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes; raises OSError for one that can't be read."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum(data: Any) -> str:
    """SHA-256 of plain data; the same in another order has the same."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
