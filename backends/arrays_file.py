"""One safe file for arrays and their description: safetensors with JSON and a checksum, no pickle.

A label says what a file was written for: of which run, image and method, say. Whoever reads it for
that says the same label, so that a file that was copied from elsewhere isn't taken for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save

from wordlight.backends.regular_files import parse_json

_HEADER = "wordlight"
#: The first version of every kind: without label and checksum, read where no label is asked for.
_UNCHECKED = 1


class FileFormatError(ValueError):
    """A file is not what it should be: truncated, of another kind or of another version."""


def write_arrays(
    path: Path,
    kind: str,
    version: int,
    arrays: dict[str, npt.NDArray[Any]],
    facts: dict[str, Any],
    label: Mapping[str, str] | None = None,
) -> None:
    """Write ``arrays`` and the JSON-able ``facts``, by atomic rename: whole or not at all.

    Raises OSError when the folder can't be written.
    """
    # Unlike ascontiguousarray it leaves an array without axes as it is.
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    said = {"kind": kind, "version": version, "facts": facts, "label": dict(label or {})}
    # As it reads back, where tuples are lists.
    said = json.loads(json.dumps(said))
    header = {**said, "checksum": _checksum(arrays, said)}
    write_atomically(path, save(arrays, metadata={_HEADER: json.dumps(header)}))


def _checksum(arrays: Mapping[str, npt.NDArray[Any]], said: Mapping[str, Any]) -> str:
    """SHA-256 of the description and of every array's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


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
    path: Path, kind: str, version: int, label: Mapping[str, str] | None = None
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Read what ``write_arrays`` wrote: the arrays and the facts.

    Raises FileNotFoundError when there is no such file, FileFormatError when it is damaged, of
    another kind or of another version, or has another label where one is asked for. Files of
    version 1, which have no checksum, are read where no label is asked for.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            header = _header(path, file.metadata() or {}, kind, version)
            checksum = header.pop("checksum", None)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, MemoryError, FileFormatError):
        raise
    except Exception as error:
        # Types that numpy lacks (bfloat16, ...) raise TypeError, AttributeError and others.
        raise FileFormatError(f"{path} is damaged or truncated: {error}") from None
    if checksum is not None and _checksum(arrays, header) != checksum:
        raise FileFormatError(f"{path} is damaged: its checksum is of other contents")
    if label is not None and header.get("label") != dict(label):
        raise FileFormatError(f"{path} {_other_label(header.get('label'), label)}")
    facts: dict[str, Any] = header["facts"]
    return arrays, facts


def _header(path: Path, meta: Mapping[str, str], kind: str, version: int) -> dict[str, Any]:
    """Return a file's header; raises FileFormatError where it is none of that kind."""
    if _HEADER not in meta:
        raise FileFormatError(f"{path} was not written by wordlight")
    header = parse_json(meta[_HEADER])
    if not isinstance(header, dict) or not isinstance(header.get("facts", {}), dict):
        raise FileFormatError(f"{path} is damaged: its description is no object")
    if header.get("kind") != kind:
        raise FileFormatError(f"{path} holds {header.get('kind')!r}, not {kind!r}"[:300])
    own = {"kind", "version", "facts"}
    if header.get("version") == _UNCHECKED and header.keys() == own:
        return header
    if header.get("version") != version:
        raise FileFormatError(
            f"{path} has format version {header.get('version')}, and this release reads "
            f"version {version}: read it with the release that wrote it"[:300]
        )
    if header.keys() != own | {"label", "checksum"}:
        raise FileFormatError(f"{path} is damaged: its description lacks something")
    return header


def _other_label(held: Any, asked: Mapping[str, str]) -> str:
    """Return the difference of a file's label from the one that was asked for, in words."""
    held = held if isinstance(held, dict) else {}
    if not held:
        return "doesn't say what it was made for: it was copied here from elsewhere"
    parts = [
        f"{key} {held.get(key, 'none')}, not {value}"
        for key, value in asked.items()
        if held.get(key) != value
    ]
    return f"was made for something else ({'; '.join(parts) or 'more than was asked for'})"[:300]
