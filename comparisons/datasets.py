"""What is judged on: images, and the words of their prompts with the mask that each should find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from wordlight.attribution.words import PromptWords, Word
from wordlight.backends.scenes.grammar import COLOURS, GROUND, SIZES, Scene, TaggedWord
from wordlight.backends.scenes.segment import segment
from wordlight.backends.trajectory import Trajectory

Mask = npt.NDArray[np.bool_]
Category = Literal["shape-noun", "colour", "size", "number", "ground"]
CATEGORIES: tuple[Category, ...] = ("shape-noun", "colour", "size", "number", "ground")

#: The rows beside the headline, and how a table calls them.
OTHER_ROWS = {
    "colour": "colour words",
    "size": "size words",
    "number": "numerals",
    "ground": "ground words",
    "one-object": "one-object images",
}


@dataclass(frozen=True, eq=False)
class ScoredWord:
    """A word with the mask that its map should find.

    Attributes:
        word: of the prompt.
        category: what kind of word it is.
        referent: which group of objects it describes, -1 for the ground.
        mask: ``(height, width)`` of the image, not empty.
        headline: whether it counts for the headline: a shape noun in an image in which at least
            two groups of objects were found whose masks differ.
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
        return "one-object" if self.category == "shape-noun" else self.category


@dataclass(frozen=True, eq=False)
class DatasetItem:
    """One image to judge on.

    Attributes:
        sample: its name, such as ``"scenes-test-0003"``.
        split: the split of its prompt.
        trajectory: how it was made.
        words: what is scored.
        dropped: category of each content word for which no mask was found.
    """

    sample: str
    split: str
    trajectory: Trajectory
    words: tuple[ScoredWord, ...]
    dropped: tuple[Category, ...]


@dataclass(frozen=True)
class Accounting:
    """How many content words were kept and dropped, by category."""

    kept: dict[str, int]
    dropped: dict[str, int]

    @classmethod
    def of(cls, items: Iterable[DatasetItem]) -> Accounting:
        """Count over items."""
        kept: Counter[str] = Counter()
        dropped: Counter[str] = Counter()
        for item in items:
            kept.update(word.category for word in item.words)
            dropped.update(item.dropped)
        return cls(
            {category: kept[category] for category in CATEGORIES},
            {category: dropped[category] for category in CATEGORIES},
        )


def scene_item(sample: str, split: str, scene: Scene, trajectory: Trajectory) -> DatasetItem:
    """Find the masks in a generated image of a scene's prompt.

    Words for which the segmenter finds no mask are dropped, by that rule alone: no method is
    looked at. Determiners, prepositions and the like describe nothing drawn and aren't counted.

    Raises ValueError when the trajectory is of another prompt.
    """
    if trajectory.prompt != scene.prompt:
        raise ValueError(
            f"{sample} should be of {scene.prompt!r}, but its trajectory is of "
            f"{trajectory.prompt!r}"
        )
    words = PromptWords.of(trajectory.tokens)
    masks = segment(trajectory.image).word_masks(scene)
    several = _several_objects(scene, masks)
    scored: list[ScoredWord] = []
    dropped: list[Category] = []
    for index, tagged in enumerate(scene.words):
        category = _category(tagged)
        if category is None or tagged.referent is None:
            continue
        mask = masks.get(index)
        if mask is None or not mask.any():
            dropped.append(category)
            continue
        word = words.find(slice(tagged.start, tagged.stop))
        headline = category == "shape-noun" and several
        scored.append(ScoredWord(word, category, tagged.referent, mask, headline))
    return DatasetItem(sample, split, trajectory, tuple(scored), tuple(dropped))


def _category(word: TaggedWord) -> Category | None:
    if word.referent is None or word.tag == "DET":
        return None
    if word.referent == GROUND:
        return "ground"
    if word.tag == "NOUN":
        return "shape-noun"
    if word.tag == "NUM":
        return "number"
    if word.text in COLOURS:
        return "colour"
    return "size" if word.text in SIZES else None


def _several_objects(scene: Scene, masks: dict[int, Mask]) -> bool:
    found = {
        word.referent: masks[index]
        for index, word in enumerate(scene.words)
        if index in masks and word.referent is not None and word.referent != GROUND
    }
    first, *others = found.values() or (None,)
    return first is not None and any(not np.array_equal(first, other) for other in others)
