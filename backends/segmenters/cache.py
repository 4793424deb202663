"""Segmenters' masks on disk: one file an image, for each model, revision and options."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wordlight.backends.arrays_file import FileFormatError, read_arrays, write_arrays

_KIND, _VERSION = "segmentation", 2
Array = npt.NDArray[Any]


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/wordlight/segmentations``, or in ``~/.cache``."""
    home = os.environ.get("XDG_CACHE_HOME")
    base = Path(home) if home else Path.home() / ".cache"
    return base / "wordlight" / "segmentations"


class SegmentationCache:
    """Arrays by model and image.

    Args:
        folder: the folder that keeps them; it is made when something is kept.
        identity: of the segmenter, revision and options included.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.identity = identity
        self.folder = folder / hashlib.sha256(identity.encode()).hexdigest()[:24]

    def get(self, image: npt.NDArray[np.uint8], what: str, compute: Callable[[], Array]) -> Array:
        """An array of an image, computed where it isn't kept yet; ``what`` tells several apart.

        A damaged file is made again. Written by atomic rename, so that many processes may share
        the folder.
        """
        digest = hashlib.sha256(f"{image.shape}\0{what}\0".encode() + image.tobytes())
        path = self.folder / f"{digest.hexdigest()[:40]}.safetensors"
        try:
            arrays, facts = read_arrays(path, _KIND, _VERSION)
            if facts.get("identity") == self.identity and "found" in arrays:
                return arrays["found"]
        except (FileNotFoundError, FileFormatError):
            pass
        found = compute()
        write_arrays(path, _KIND, _VERSION, {"found": found}, {"identity": self.identity})
        return found
