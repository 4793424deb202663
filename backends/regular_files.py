"""Reads files that may be anything: plain files alone, up to a size, and JSON however deep."""

from __future__ import annotations

import errno
import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

#: In bytes: what describes something is never larger, however many words a tokenizer has.
LARGEST_DESCRIPTION = 256 * 2**20


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading.

    Raises OSError as ``open`` does, and where it is no plain file: reading a named pipe waits for
    its writer, and a device may have no end.
    """
    # A pipe that nobody writes to must not be waited for, not even to see what it is.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is a named pipe, socket or device", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: Path, most: int = LARGEST_DESCRIPTION) -> bytes:
    """The bytes of a plain file of at most ``most``; raises OSError as ``open_regular`` does, and
    for a larger one."""
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
    return data


def parse_json(text: str | bytes, *, unique: bool = False) -> Any:
    """Return the content of JSON; raises ValueError for all that is none, or can't be held, and
    with ``unique`` where an object has a key twice, of which the last alone would be read."""
    try:
        return json.loads(text, object_pairs_hook=_unique if unique else None)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has {max(names, key=names.count)!r} twice")
    return found


def read_json_file(path: Path, most: int = LARGEST_DESCRIPTION) -> Any:
    """Return the content of a JSON file; raises OSError where it can't be read, ValueError for no
    JSON."""
    return parse_json(read_regular(path, most))
