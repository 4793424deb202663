"""The segmenter of the nouns of ``things``: a small network on numpy, which needs no download."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from wordlight.backends.prompts import union
from wordlight.backends.segmenters.matching import classes_of
from wordlight.backends.segmenters.segmenter import Image, Mask, Segmenter
from wordlight.backends.things.nouns import NOUNS
from wordlight.backends.things.render import SIZE
from wordlight.backends.things.segment import WEIGHTS, Segmentation, segment

#: The grounds that a noun names, by that noun.
_GROUNDS = {
    "sky": "sky",
    "grass": "grass",
    "sand": "sand",
    "water": "water",
    "wall": "bricks",
}
#: Irregular plurals, and nothing wider: a taxi is a class of its own here.
_SPELLINGS = MappingProxyType(
    {
        **{noun.name: (noun.plural,) for noun in NOUNS.values()},
        "wall": ("brick wall", "brick"),
    }
)


class Things(Segmenter):
    """Finds the 81 nouns of ``things``, and its grounds, in images of 64 by 64 pixels.

    It was trained on rendered pictures alone (``backends/training/train_segmenter.py``).
    """

    kind: ClassVar[str] = "things"
    model_id = "embedded"
    synonyms = _SPELLINGS

    def __init__(self) -> None:
        self.revision = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()[:12]
        self.options = {}

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return (*NOUNS, *_GROUNDS)

    def _masks(self, image: Image, words: Sequence[str]) -> list[Mask | None]:
        if image.shape[:2] != (SIZE, SIZE):
            height, width = image.shape[:2]
            raise ValueError(
                f"the segmenter of things takes images of {SIZE}x{SIZE} pixels, as things and "
                f"things-dit draw them, not of {width}x{height}"
            )
        found = segment(image)
        return [self._mask(found, classes_of(word, self.vocabulary, _SPELLINGS)) for word in words]

    def _mask(self, found: Segmentation, names: Sequence[str]) -> Mask | None:
        if not names:
            return None
        masks = [item.mask for item in found.objects if item.noun in names]
        if found.ground in {_GROUNDS.get(name) for name in names}:
            masks.append(found.ground_mask)
        nothing = np.zeros((SIZE, SIZE), bool)
        return union([nothing, *masks])
