"""``Segmenter``: a model that was trained on masks, asked for the masks of words."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from wordlight.backends.sampling import check_image
from wordlight.backends.segmenters.matching import Synonyms

Mask = npt.NDArray[np.bool_]
Image = npt.NDArray[np.uint8]


class SegmenterLoadError(ValueError):
    """A segmenter that can't be loaded: no such model, other weights, missing packages."""


def digest_of(words: Sequence[object]) -> str:
    """Return a digest of a list of words, or of words with their synonyms."""
    return hashlib.sha256(repr(tuple(words)).encode()).hexdigest()[:12]


class Segmenter(ABC):
    """Gives the mask of what a word names, for any image.

    ``model_id`` and ``revision`` say which weights, ``options`` what else changes its masks.
    """

    kind: ClassVar[str]
    model_id: str
    revision: str | None
    options: dict[str, Any]
    #: Which words name a class beside its name; the package's own if None.
    synonyms: Synonyms | None = None

    @property
    @abstractmethod
    def vocabulary(self) -> tuple[str, ...]:
        """The names of what it can be asked for."""

    def masks(self, image: Image, words: Sequence[str]) -> list[Mask | None]:
        """The mask of each word, ``(height, width)``: empty where it finds no such thing, None
        where it has no class for the word.

        Raises ValueError for anything but a ``(height, width, 3)`` uint8 image.
        """
        check_image(image)
        return self._masks(image, words)

    @abstractmethod
    def _masks(self, image: Image, words: Sequence[str]) -> list[Mask | None]: ...

    @property
    def identity(self) -> str:
        """A text that differs where its masks may: kind, model, revision, options."""
        found = dict(self.options)
        if self.synonyms is not None:
            found["synonyms"] = digest_of(sorted(self.synonyms.items()))
        options = "".join(f",{key}={value}" for key, value in sorted(found.items()))
        return f"{self.kind}:{self.model_id}@{self.revision}{options}"

    @property
    def weights_id(self) -> str:
        """A text that differs where its weights do; of a network a digest, since a Hub's revision
        of the same weights isn't a folder's."""
        return self.revision or self.model_id

    def same_weights(self, other: Segmenter) -> bool:
        """Return whether another one is the same model, whatever its name and options."""
        return (self.kind, self.weights_id) == (other.kind, other.weights_id)
