"""Output folders: whether they can be written is known before the long work, not after it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class OutputFolderError(OSError):
    """A folder for results can't be made or written."""


@contextmanager
def writable_folder(folder: Path) -> Iterator[Path]:
    """Make ``folder`` if need be and make sure that it can be written.

    When the block raises, whatever folders were made here and are still empty go again.

    Raises OutputFolderError when it can't be written.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputFolderError(f"can't write into {folder}: it is a file: name a folder")
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        _remove_empty(made)
        reason = error.strerror or str(error)
        raise OutputFolderError(f"can't write into {folder}: {reason}") from None
    try:
        yield folder
    except BaseException:
        _remove_empty(made)
        raise


@contextmanager
def written_at_once(folder: Path) -> Iterator[Path]:
    """A temporary folder inside ``folder``, whose files move there when the block ends well.

    When the block raises, nothing of it stays. Raises OutputFolderError when ``folder`` can't be
    written.
    """
    with writable_folder(folder):
        partial = Path(tempfile.mkdtemp(dir=folder, prefix=".partial-"))
        try:
            yield partial
            for path in sorted(partial.iterdir()):
                path.replace(folder / path.name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
