"""Parts that the data of the embedded models share: prompts in tagged words, splits, masks of
words."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

SIZES = ("small", "large")
NUMERALS = {2: "two", 3: "three"}
RELATIONS = {
    "and": "and",
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
}
_RELATION_TAGS = {"and": "CCONJ", "the": "DET", "left": "NOUN", "right": "NOUN"}

#: What a word refers to when it isn't one of the prompt's groups of objects.
GROUND = -1

#: A word, its part of speech and its referent, as in ``TaggedWord``.
Said = tuple[str, str, int | None]


@dataclass(frozen=True)
class TaggedWord:
    """One word of a prompt.

    ``start`` and ``stop`` are character positions in the prompt; ``tag`` is a Universal
    Dependencies part of speech; ``referent`` is the index of the group of objects that the word
    describes, ``GROUND`` for the ground, or None for a word that describes nothing drawn.
    """

    text: str
    start: int
    stop: int
    tag: str
    referent: int | None


def same_noun(one: TaggedWord, other: TaggedWord) -> bool:
    """Return True for neighbours that are one noun of several words: ``hot dog``."""
    return one.tag == other.tag == "NOUN" and one.referent == other.referent is not None


@dataclass(frozen=True)
class AskedScene(ABC):
    """The content of a prompt: one to three groups of objects, their relation, the ground.

    ``relation`` is that of the first two groups of objects, if there is one.
    """

    groups: tuple[Any, ...]
    relation: str | None
    ground: str | None
    full_stop: bool

    @abstractmethod
    def say_group(self, index: int) -> list[Said]:
        """Return the words of a group's noun phrase."""

    @abstractmethod
    def say_ground(self, ground: str) -> list[Said]:
        """Return the words of a ground, with the preposition."""

    def said(self) -> list[Said]:
        """Return the words and punctuation marks of the prompt, in order."""
        said: list[Said] = []
        for index in range(len(self.groups)):
            said += say_joint(index, len(self.groups), self.relation)
            said += self.say_group(index)
        if self.ground:
            said += self.say_ground(self.ground)
        if self.full_stop:
            said.append((".", "PUNCT", None))
        return said

    @property
    def prompt(self) -> str:
        """The prompt in words."""
        return self._spell()[0]

    @property
    def words(self) -> tuple[TaggedWord, ...]:
        """Every word and punctuation mark of the prompt, in order."""
        return self._spell()[1]

    def _spell(self) -> tuple[str, tuple[TaggedWord, ...]]:
        text = ""
        words = []
        for word, tag, referent in self.said():
            text += " " if text and tag != "PUNCT" else ""
            words.append(TaggedWord(word, len(text), len(text) + len(word), tag, referent))
            text += word
        return text, tuple(words)


def say_joint(index: int, n_groups: int, relation: str | None) -> list[Said]:
    """Return what stands before group ``index`` of a prompt: nothing, a comma or a relation."""
    if index == 0:
        return []
    if n_groups == 3 and index == 1:
        return [(",", "PUNCT", None)]
    words = RELATIONS[relation or "and"].split()
    return [(word, _RELATION_TAGS.get(word, "ADP"), None) for word in words]


def say_count(count: int, following: str, referent: int) -> Said:
    """Return the numeral or the article of a noun phrase; ``following`` is the word after it."""
    if count > 1:
        return NUMERALS[count], "NUM", referent
    return "an" if following[0] in "aeiou" else "a", "DET", referent


def hash_percent(text: str) -> int:
    """Return a number from 0 to 99 that depends on nothing but the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 100


def split_by_text(text: str, shares: Mapping[str, int]) -> str:
    """Return the split that a text belongs to, of splits with their shares in per cent."""
    place = hash_percent(text)
    for split, share in shares.items():
        if place < share:
            return split
        place -= share
    raise AssertionError("the shares of the splits do not sum to 100")


def check_split(split: str, splits: Sequence[str]) -> None:
    """Raise ValueError for an unknown split."""
    if split not in splits:
        raise ValueError(f"no split {split!r}; there are {', '.join(splits)}")


SceneT = TypeVar("SceneT")


def draw_until(split: str, split_of: Callable[[SceneT], str], draw: Callable[[], SceneT]) -> SceneT:
    """Return the first scene drawn that belongs to a split."""
    while split_of(scene := draw()) != split:
        pass
    return scene


def draw_setting(
    rng: np.random.Generator, n_groups: int, grounds: Sequence[str]
) -> tuple[str | None, str | None, bool]:
    """Draw the relation of a prompt's groups, its ground and whether it ends with a full stop."""
    relation = None
    if n_groups == 2:
        relation = str(rng.choice(list(RELATIONS), p=[0.3, 0.175, 0.175, 0.175, 0.175]))
    ground = str(rng.choice(grounds)) if rng.random() < 0.85 else None
    return relation, ground, bool(rng.random() < 0.5)


def distance_along(relation: str, right: float, down: float) -> float:
    """Return how far a second thing lies in the direction in which a relation has it, of how far
    it lies to the right of the first and below it."""
    return {"left": right, "right": -right, "above": down, "below": -down}[relation]


def generator_of(split: str, index: int, seed: int, splits: Sequence[str]) -> np.random.Generator:
    """Return the random numbers of the ``index``-th scene of a split: the same on every machine.

    Raises ValueError for an unknown split or a negative index.
    """
    check_split(split, splits)
    if index < 0:
        raise ValueError(f"index must be 0 or more, not {index}")
    return np.random.default_rng([seed, splits.index(split), index])


def word_masks(
    words: Sequence[TaggedWord], groups: Sequence[Mask | None], ground: Mask | None
) -> dict[int, Mask]:
    """Return the mask of each word, by the word's index, from those of groups and ground.

    Words that describe nothing drawn, and those whose group or ground is None, have no entry.
    """
    masks = {}
    for index, word in enumerate(words):
        if word.referent is not None:
            mask = ground if word.referent == GROUND else groups[word.referent]
            if mask is not None:
                masks[index] = mask
    return masks


def union(masks: Sequence[Mask]) -> Mask | None:
    """Return the union of masks; None where there are none."""
    return np.logical_or.reduce(masks) if masks else None


@dataclass(frozen=True)
class RenderedScene:
    """A drawn scene.

    Attributes:
        scene: the content of its prompt.
        image: ``(64, 64, 3)`` uint8.
        ground: the name of the ground drawn, which a prompt may leave open.
        objects: in the order in which they were drawn, later ones before earlier ones.
        group_masks: a ``(64, 64)`` boolean mask of what is seen of each group.
    """

    scene: Any
    image: npt.NDArray[np.uint8]
    ground: str
    objects: tuple[Any, ...]
    group_masks: tuple[Mask, ...]

    @property
    def ground_mask(self) -> Mask:
        """The pixels that no object covers."""
        covered: Mask = np.logical_or.reduce(self.group_masks)
        return ~covered

    def word_masks(self) -> dict[int, Mask]:
        """Return the mask of each word that describes something drawn, by the word's index."""
        return word_masks(self.scene.words, self.group_masks, self.ground_mask)


@dataclass(frozen=True)
class FoundScene(ABC):
    """The content of an image: its objects, the ground's name and the ground's mask."""

    objects: tuple[Any, ...]
    ground: str
    ground_mask: Mask

    @abstractmethod
    def members(self, scene: Any, group: Any) -> list[Any]:
        """Return the objects that a noun phrase of a scene's prompt means."""

    def word_masks(self, scene: AskedScene) -> dict[int, Mask]:
        """Return the mask of each word of ``scene`` that is found, by the word's index.

        A word of a noun phrase has the union of the phrase's objects (see ``members``); a word of
        the ground has the ground, if it is the one asked for. Words that are not found have no
        entry.
        """
        groups = [union([o.mask for o in self.members(scene, group)]) for group in scene.groups]
        ground = self.ground_mask if self.ground == scene.ground else None
        return word_masks(scene.words, groups, ground)
