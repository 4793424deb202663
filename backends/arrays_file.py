"""One safe file for arrays and their description: safetensors with JSON, no pickle."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

_HEADER = "wordlight"


class FileFormatError(ValueError):
    """A file is not what it should be: truncated, of another kind or of another version."""


def write_arrays(
    path: Path, kind: str, version: int, arrays: dict[str, npt.NDArray[Any]], facts: dict[str, Any]
) -> None:
    """Write ``arrays`` and the JSON-able ``facts``, by atomic rename: whole or not at all.

    Raises OSError when the folder can't be written.
    """
    header = {"kind": kind, "version": version, "facts": facts}
    data = save(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        metadata={_HEADER: json.dumps(header)},
    )
    write_atomically(path, data)


def write_atomically(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` by writing beside it and renaming; missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(partial, 0o666 & ~umask)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def read_arrays(
    path: Path, kind: str, version: int
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Read what ``write_arrays`` wrote: the arrays and the facts.

    Raises FileNotFoundError when there is no such file, FileFormatError when it is damaged, of
    another kind or of another version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            meta = file.metadata() or {}
            if _HEADER not in meta:
                raise FileFormatError(f"{path} was not written by wordlight")
            header = json.loads(meta[_HEADER])
            if not isinstance(header, dict) or not isinstance(header.get("facts", {}), dict):
                raise FileFormatError(f"{path} is damaged: its description is no object")
            if header.get("kind") != kind:
                raise FileFormatError(f"{path} holds {header.get('kind')!r}, not {kind!r}")
            if header.get("version") != version:
                raise FileFormatError(
                    f"{path} has format version {header.get('version')}, and this release reads "
                    f"version {version}: read it with the release that wrote it"
                )
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return arrays, header["facts"]
    except (SafetensorError, json.JSONDecodeError, KeyError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} is damaged or truncated: {error}") from None
