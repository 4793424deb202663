"""One run at a time in a folder of results."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from wordlight.backends.arrays_file import write_atomically

_LOCK, _OWNER = ".lock", ".running.json"


class RunInUseError(ValueError):
    """Another process is running in the folder."""


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the folder's lock for the length of the block.

    The operating system gives it up when its holder dies, however that comes about, so a lock that
    was left behind stands in nobody's way.

    Raises RunInUseError when another process holds it, saying which.
    """
    lock = FileLock(root / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunInUseError(
            f"{root} is in use by {_owner(root)}: wait for it, or use another folder"
        ) from None
    try:
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_atomically(root / _OWNER, json.dumps(owner).encode())
        yield
    finally:
        (root / _OWNER).unlink(missing_ok=True)
        # A folder in which nothing came to be is left as it was.
        if os.listdir(root) == [_LOCK]:
            (root / _LOCK).unlink()
        lock.release()


def is_locked(root: Path) -> bool:
    """Return whether a process is running in the folder now."""
    if not (root / _OWNER).exists():
        return False
    lock = FileLock(root / _LOCK, timeout=0)
    try:
        with lock:
            return False
    except Timeout:
        return True
    except OSError as error:
        # Nobody runs where nothing can be written, such as a disk that is read-only now.
        return error.errno not in (errno.EROFS, errno.EACCES) or os.access(root, os.W_OK)


def _owner(root: Path) -> str:
    try:
        owner = json.loads((root / _OWNER).read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
