"""The prompts of ``things``: what is asked for, in words, each word with what it refers to."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

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
    hash_percent,
    say_count,
    split_by_text,
)
from wordlight.backends.things.nouns import LOOK_ALIKES, NOUNS, look_alike

DATA_VERSION = 1

#: Colours that things without a colour of their own may have. Orange is a fruit here.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 50),
    "green": (50, 160, 70),
    "blue": (45, 90, 220),
    "yellow": (245, 210, 50),
    "purple": (140, 60, 185),
    "pink": (245, 130, 180),
}

#: How each ground is said: its words and their parts of speech; the ground's own words are those
#: after the preposition.
GROUNDS: dict[str, tuple[tuple[str, str], ...]] = {
    "white": (("on", "ADP"), ("a", "DET"), ("white", "ADJ"), ("background", "NOUN")),
    "gray": (("on", "ADP"), ("a", "DET"), ("gray", "ADJ"), ("background", "NOUN")),
    "sky": (("in", "ADP"), ("the", "DET"), ("sky", "NOUN")),
    "night": (("at", "ADP"), ("night", "NOUN")),
    "grass": (("on", "ADP"), ("the", "DET"), ("grass", "NOUN")),
    "sand": (("on", "ADP"), ("the", "DET"), ("sand", "NOUN")),
    "water": (("on", "ADP"), ("the", "DET"), ("water", "NOUN")),
    "bricks": (
        ("in", "ADP"),
        ("front", "NOUN"),
        ("of", "ADP"),
        ("a", "DET"),
        ("brick", "NOUN"),
        ("wall", "NOUN"),
    ),
}
#: Words before which a ground's own words haven't begun: "in front of".
_BEFORE_GROUND = {"in", "on", "at", "front", "of"}

#: Share of all prompts (by a hash of their text without its full stop) that each split has.
_SPLIT_SHARES = {
    "train": 80,
    "validation": 5,
    "calibration": 5,
    "test": 5,
    "unseen-style": 5,
}
#: Test prompts with two nouns that look alike are a split of their own.
SPLITS = (*_SPLIT_SHARES, "unseen-pairs", "look-alikes")
#: Per cent of the pairs of nouns that no split but ``unseen-pairs`` ever asks for.
_UNSEEN_PERCENT = 5
#: Share of the prompts with several nouns whose first two look alike.
_LOOK_ALIKE_SHARE = 0.15

_NAMES = np.array(list(NOUNS))
_PAIRS = tuple(pair for family in LOOK_ALIKES for pair in combinations(sorted(family), 2))


@dataclass(frozen=True)
class Group:
    """Some things asked for in one noun phrase: ``two small dogs``."""

    count: int
    size: str | None
    colour: str | None
    noun: str


@dataclass(frozen=True)
class Scene(AskedScene):
    """A prompt's content, of things."""

    groups: tuple[Group, ...]

    @property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """The pairs of nouns asked for, each in alphabetical order."""
        return frozenset(combinations(sorted({group.noun for group in self.groups}), 2))

    def say_group(self, index: int) -> list[Said]:
        group = self.groups[index]
        noun = NOUNS[group.noun]
        adjectives = [word for word in (group.size, group.colour) if word]
        names = (noun.name if group.count == 1 else noun.plural).split()
        counted = say_count(group.count, [*adjectives, *names][0], index)
        if group.count == 1 and noun.is_pair:
            counted = ("some", "DET", index)
        return [
            counted,
            *((word, "ADJ", index) for word in adjectives),
            *((word, "NOUN", index) for word in names),
        ]

    def say_ground(self, ground: str) -> list[Said]:
        return [
            (word, tag, None if word in _BEFORE_GROUND else GROUND) for word, tag in GROUNDS[ground]
        ]


def vocabulary() -> frozenset[str]:
    """Return every word that a prompt can have, without punctuation."""
    names = [name for noun in NOUNS.values() for name in (noun.name, noun.plural)]
    grounds = [word for words in GROUNDS.values() for word, _ in words]
    phrases = ("a an some", *RELATIONS.values(), *names)
    return frozenset(
        (
            *(word for phrase in phrases for word in phrase.split()),
            *(*NUMERALS.values(), *SIZES, *COLOURS, *grounds),
        )
    )


def is_unseen(pair: tuple[str, str]) -> bool:
    """Return True for a pair of nouns that only the split ``unseen-pairs`` asks for."""
    return not look_alike(*pair) and hash_percent("+".join(sorted(pair))) < _UNSEEN_PERCENT


def split_of(scene: Scene) -> str:
    """Return the split that a scene's prompt belongs to.

    A prompt is never in two splits, and the same prompt with and without its full stop is in one.
    """
    if any(is_unseen(pair) for pair in scene.pairs):
        return "unseen-pairs"
    split = split_by_text(scene.prompt.removesuffix("."), _SPLIT_SHARES)
    alike = any(look_alike(*pair) for pair in scene.pairs)
    return "look-alikes" if split == "test" and alike else split


def sample_scene(rng: np.random.Generator, split: str) -> Scene:
    """Draw a scene whose prompt belongs to ``split``.

    Raises ValueError for an unknown split.
    """
    check_split(split, SPLITS)
    return draw_until(split, split_of, lambda: _draw(rng))


def _draw(rng: np.random.Generator) -> Scene:
    number = int(rng.choice([1, 2, 3], p=[0.35, 0.55, 0.1]))
    counts = _draw_counts(rng, number)
    groups = tuple(
        _draw_group(rng, count, noun)
        for count, noun in zip(counts, _draw_nouns(rng, number), strict=True)
    )
    return Scene(groups, *draw_setting(rng, number, list(GROUNDS)))


def _draw_nouns(rng: np.random.Generator, number: int) -> list[str]:
    if number > 1 and rng.random() < _LOOK_ALIKE_SHARE:
        pair = list(_PAIRS[int(rng.integers(len(_PAIRS)))])
        rng.shuffle(pair)
        others = [name for name in NOUNS if name not in pair]
        return [*pair, *(str(name) for name in rng.choice(others, number - 2, replace=False))]
    return [str(name) for name in rng.choice(_NAMES, number, replace=False)]


def _draw_group(rng: np.random.Generator, count: int, noun: str) -> Group:
    size = str(rng.choice(SIZES)) if rng.random() < 0.25 else None
    tinted = NOUNS[noun].tinted and rng.random() < 0.5
    return Group(count, size, str(rng.choice(list(COLOURS))) if tinted else None, noun)


def _draw_counts(rng: np.random.Generator, number: int) -> list[int]:
    if number == 1:
        return [int(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2]))]
    if number == 3:
        return [1, 1, 1]
    choices = [(1, 1), (1, 2), (2, 1)]
    return list(choices[int(rng.choice(3, p=[0.7, 0.15, 0.15]))])
