"""A model's folder in diffusers' format: whether it's there, and the revision it stands for."""

from __future__ import annotations

import hashlib
from pathlib import Path

#: The endings of all that makes a model: weights, configurations, tokenizer.
_MODEL_FILES = {".safetensors", ".msgpack", ".json", ".txt"}


class ModelLoadError(ValueError):
    """A name, folder or object that no backend can load as a model."""


def is_there(folder: Path) -> bool:
    """Whether it exists; a name too long for a folder is of none."""
    try:
        return folder.exists()
    except OSError:
        return False


def revision_of(folder: Path) -> str:
    """Twelve hexadecimal digits: a digest of the names and contents of all the model's files.

    With it, results can't be taken for those of other weights under the same name.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in _MODEL_FILES):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]
