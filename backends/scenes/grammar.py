"""The prompts of ``scenes``: what is asked for, in words, each word with what it refers to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

DATA_VERSION = 1

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 40),
    "green": (40, 170, 70),
    "blue": (40, 80, 225),
    "yellow": (250, 220, 40),
    "purple": (150, 50, 190),
    "orange": (250, 135, 15),
}
GROUNDS: dict[str, tuple[int, int, int]] = {
    "black": (12, 12, 12),
    "white": (245, 245, 245),
    "gray": (128, 128, 128),
}
SHAPES = ("circle", "square", "triangle", "cross")
SIZES = ("small", "large")
NUMERALS = {2: "two", 3: "three"}
RELATIONS = {
    "and": "and",
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
}

#: (colour, shape) pairs that no split but ``unseen-pairs`` ever asks for.
UNSEEN_PAIRS = frozenset(
    {("red", "triangle"), ("green", "cross"), ("blue", "circle"), ("purple", "square")}
)

#: Share of all prompts (by a hash of their text) that belongs to each split.
_SPLIT_SHARES = {"train": 82, "validation": 6, "calibration": 6, "test": 6}
SPLITS = (*_SPLIT_SHARES, "unseen-pairs")

#: What a word refers to when it isn't one of the prompt's groups of objects.
GROUND = -1


@dataclass(frozen=True)
class Group:
    """Some objects asked for in one noun phrase: ``two small blue squares``."""

    count: int
    size: str | None
    colour: str
    shape: str


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


@dataclass(frozen=True)
class Scene:
    """What a prompt asks for: one to three groups of objects, their relation, the ground."""

    groups: tuple[Group, ...]
    relation: str | None
    ground: str | None
    full_stop: bool

    @property
    def prompt(self) -> str:
        """The prompt in words."""
        return self._spell()[0]

    @property
    def words(self) -> tuple[TaggedWord, ...]:
        """Every word and punctuation mark of the prompt, in order."""
        return self._spell()[1]

    @property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """The (colour, shape) pairs asked for."""
        return frozenset((g.colour, g.shape) for g in self.groups)

    def _spell(self) -> tuple[str, tuple[TaggedWord, ...]]:
        text = ""
        words: list[TaggedWord] = []

        def say(word: str, tag: str, referent: int | None = None) -> None:
            nonlocal text
            if text and tag != "PUNCT":
                text += " "
            words.append(TaggedWord(word, len(text), len(text) + len(word), tag, referent))
            text += word

        for index, group in enumerate(self.groups):
            if index:
                self._say_joint(index, say)
            if group.count == 1:
                follows = group.size or group.colour
                say("an" if follows[0] in "aeiou" else "a", "DET", index)
            else:
                say(NUMERALS[group.count], "NUM", index)
            if group.size:
                say(group.size, "ADJ", index)
            say(group.colour, "ADJ", index)
            say(plural(group.shape) if group.count > 1 else group.shape, "NOUN", index)
        if self.ground:
            say("on", "ADP")
            say("a", "DET", GROUND)
            say(self.ground, "ADJ", GROUND)
            say("background", "NOUN", GROUND)
        if self.full_stop:
            say(".", "PUNCT")
        return text, tuple(words)

    def _say_joint(self, index: int, say: object) -> None:
        assert callable(say)
        if len(self.groups) == 3 and index == 1:
            say(",", "PUNCT")
            return
        phrase = RELATIONS[self.relation or "and"]
        tags = {"and": "CCONJ", "the": "DET", "left": "NOUN", "right": "NOUN"}
        for word in phrase.split():
            say(word, tags.get(word, "ADP"))


def plural(shape: str) -> str:
    """The plural of a shape's name."""
    return "crosses" if shape == "cross" else shape + "s"


def vocabulary() -> frozenset[str]:
    """Return every word that a prompt can have, without punctuation."""
    shapes = (*SHAPES, *(plural(shape) for shape in SHAPES))
    phrases = ("a an on background", *RELATIONS.values())
    return frozenset(
        (
            *(word for phrase in phrases for word in phrase.split()),
            *(*NUMERALS.values(), *SIZES, *COLOURS, *GROUNDS, *shapes),
        )
    )


def split_of(scene: Scene) -> str:
    """The split that a scene's prompt belongs to; a prompt is never in two splits."""
    if scene.pairs & UNSEEN_PAIRS:
        return "unseen-pairs"
    digest = hashlib.sha256(scene.prompt.encode()).digest()
    place = int.from_bytes(digest[:4], "big") % 100
    for split, share in _SPLIT_SHARES.items():
        if place < share:
            return split
        place -= share
    raise AssertionError("the shares of the splits do not sum to 100")


def sample_scene(rng: np.random.Generator, split: str) -> Scene:
    """Draw a scene whose prompt belongs to ``split``.

    Raises ValueError for an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    while True:
        scene = _draw(rng)
        if split_of(scene) == split:
            return scene


def _draw(rng: np.random.Generator) -> Scene:
    number = int(rng.choice([1, 2, 3], p=[0.3, 0.6, 0.1]))
    counts = _draw_counts(rng, number)
    pairs = rng.choice(len(COLOURS) * len(SHAPES), size=number, replace=False)
    colours = tuple(COLOURS)
    groups = tuple(
        Group(
            count=count,
            size=str(rng.choice(SIZES)) if rng.random() < 0.3 else None,
            colour=colours[int(pair) // len(SHAPES)],
            shape=SHAPES[int(pair) % len(SHAPES)],
        )
        for count, pair in zip(counts, pairs, strict=True)
    )
    relation = None
    if number == 2:
        relation = str(rng.choice(list(RELATIONS), p=[0.3, 0.175, 0.175, 0.175, 0.175]))
    ground = str(rng.choice(list(GROUNDS))) if rng.random() < 0.85 else None
    return Scene(groups, relation, ground, full_stop=bool(rng.random() < 0.5))


def _draw_counts(rng: np.random.Generator, number: int) -> list[int]:
    if number == 1:
        return [int(rng.choice([1, 2, 3], p=[0.4, 0.3, 0.3]))]
    if number == 3:
        return [1, 1, 1]
    choices = [(1, 1), (1, 2), (2, 1), (2, 2)]
    return list(choices[int(rng.choice(4, p=[0.55, 0.175, 0.175, 0.1]))])
