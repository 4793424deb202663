"""The prompts of ``scenes``: what is asked for, in words, each word with what it refers to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wordlight.backends.prompts import (
    GROUND,
    NUMERALS,
    RELATIONS,
    SIZES,
    AskedScene,
    Said,
    check_split,
    draw_setting,
    draw_until,
    say_count,
    split_by_text,
)

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

#: (colour, shape) pairs that no split but ``unseen-pairs`` ever asks for.
UNSEEN_PAIRS = frozenset(
    {("red", "triangle"), ("green", "cross"), ("blue", "circle"), ("purple", "square")}
)

#: Share of all prompts (by a hash of their text) that belongs to each split.
_SPLIT_SHARES = {"train": 82, "validation": 6, "calibration": 6, "test": 6}
SPLITS = (*_SPLIT_SHARES, "unseen-pairs")


@dataclass(frozen=True)
class Group:
    """Some objects asked for in one noun phrase: ``two small blue squares``."""

    count: int
    size: str | None
    colour: str
    shape: str


@dataclass(frozen=True)
class Scene(AskedScene):
    """A prompt's content, of shapes."""

    groups: tuple[Group, ...]

    @property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """The (colour, shape) pairs asked for."""
        return frozenset((g.colour, g.shape) for g in self.groups)

    def say_group(self, index: int) -> list[Said]:
        group = self.groups[index]
        adjectives = [word for word in (group.size, group.colour) if word]
        noun = plural(group.shape) if group.count > 1 else group.shape
        return [
            say_count(group.count, adjectives[0], index),
            *((word, "ADJ", index) for word in adjectives),
            (noun, "NOUN", index),
        ]

    def say_ground(self, ground: str) -> list[Said]:
        own: list[Said] = [("a", "DET", GROUND), (ground, "ADJ", GROUND)]
        return [("on", "ADP", None), *own, ("background", "NOUN", GROUND)]


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
    return split_by_text(scene.prompt, _SPLIT_SHARES)


def sample_scene(rng: np.random.Generator, split: str) -> Scene:
    """Draw a scene whose prompt belongs to ``split``.

    Raises ValueError for an unknown split.
    """
    check_split(split, SPLITS)
    return draw_until(split, split_of, lambda: _draw(rng))


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
    return Scene(groups, *draw_setting(rng, number, list(GROUNDS)))


def _draw_counts(rng: np.random.Generator, number: int) -> list[int]:
    if number == 1:
        return [int(rng.choice([1, 2, 3], p=[0.4, 0.3, 0.3]))]
    if number == 3:
        return [1, 1, 1]
    choices = [(1, 1), (1, 2), (2, 1), (2, 2)]
    return list(choices[int(rng.choice(4, p=[0.55, 0.175, 0.175, 0.1]))])
