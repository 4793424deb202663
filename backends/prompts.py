"""Parts that the data of the embedded models share: prompts in tagged words, splits, masks of
words."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

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


class AskedScene(ABC):
    """The content of a prompt; a subclass says it in words.

    ``relation`` is that of the first two groups of objects, if there is one.
    """

    relation: str | None

    @abstractmethod
    def said(self) -> list[Said]:
        """Return the words and punctuation marks of the prompt, in order."""

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
