"""Items that are judged: an image, and the words of its prompt with the mask that each should
find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from wordlight.attribution.words import Word
from wordlight.backends.trajectory import Trajectory

Mask = npt.NDArray[np.bool_]
Category = Literal["shape-noun", "colour", "size", "number", "ground", "object", "stuff"]
#: Of the words of ``scenes``.
CATEGORIES: tuple[Category, ...] = ("shape-noun", "colour", "size", "number", "ground")
#: Of the words of other data sets: a thing that can be counted, or sky, grass, ...
OTHER_CATEGORIES: tuple[Category, ...] = ("object", "stuff")

#: The rows beside the headline, and how a table calls them.
OTHER_ROWS = {
    "colour": "colour words",
    "size": "size words",
    "number": "numerals",
    "ground": "ground words",
    "stuff": "stuff",
    "one-object": "one-object images",
}


@dataclass(frozen=True, eq=False)
class ScoredWord:
    """A word with the mask that its map should find.

    Attributes:
        word: of the prompt.
        category: the kind of word.
        referent: the group of objects it describes, -1 for the ground.
        mask: ``(height, width)`` of the image, not empty.
        headline: whether it counts for the headline: a shape noun, or any other object's name, in
            an image in which at least two objects were found whose masks differ.
    """

    word: Word
    category: Category
    referent: int
    mask: Mask
    headline: bool

    @property
    def row(self) -> str:
        """``"headline"``, or which of the other rows it belongs to."""
        if self.headline:
            return "headline"
        return "one-object" if self.category in ("shape-noun", "object") else self.category


@dataclass(frozen=True, eq=False)
class DatasetItem:
    """One image to judge on.

    Attributes:
        sample: its name, such as ``"scenes-test-0003"``.
        split: the split of its prompt.
        trajectory: the run that made it, or its inversion where it was given.
        words: the words to score.
        dropped: category of each content word for which no mask was found.
    """

    sample: str
    split: str
    trajectory: Trajectory
    words: tuple[ScoredWord, ...]
    dropped: tuple[Category, ...]


@dataclass(frozen=True)
class WordCounts:
    """Counts of the words to score that were kept and dropped, by category."""

    kept: dict[str, int]
    dropped: dict[str, int]

    @classmethod
    def of(cls, items: Iterable[DatasetItem]) -> WordCounts:
        """Count over items."""
        kept: Counter[str] = Counter()
        dropped: Counter[str] = Counter()
        for item in items:
            kept.update(word.category for word in item.words)
            dropped.update(item.dropped)
        return cls.counted(kept, dropped)

    @classmethod
    def counted(cls, kept: Counter[str], dropped: Counter[str]) -> WordCounts:
        """Return an account of words that were counted elsewhere."""
        other = [category for category in OTHER_CATEGORIES if kept[category] or dropped[category]]
        # A data set has words of one kind or of the other.
        scenes = [] if other else CATEGORIES
        return cls(
            {category: kept[category] for category in (*scenes, *other)},
            {category: dropped[category] for category in (*scenes, *other)},
        )
