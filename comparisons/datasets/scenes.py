"""The words of a generated scene, with the masks that are found in the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from wordlight.attribution.words import PromptWords
from wordlight.backends.prompted_data import SCENES, PromptedData
from wordlight.backends.prompts import GROUND, SIZES, AskedScene, TaggedWord, same_noun
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.datasets.item import Category, DatasetItem, Mask, ScoredWord


def scene_item(
    sample: str,
    split: str,
    scene: AskedScene,
    trajectory: Trajectory,
    data: PromptedData = SCENES,
) -> DatasetItem:
    """Find the masks in a generated image of a scene's prompt, by the segmenter of its data.

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
    masks = data.segment(trajectory.image).word_masks(scene)
    several = _several_objects(scene, masks)
    scored: list[ScoredWord] = []
    dropped: list[Category] = []
    for index, place, category in described(scene.words, data):
        mask = masks.get(index)
        if mask is None or not mask.any():
            dropped.append(category)
            continue
        referent = scene.words[index].referent
        assert referent is not None
        headline = category == data.noun and several
        scored.append(ScoredWord(words.find(place), category, referent, mask, headline))
    return DatasetItem(sample, split, trajectory, tuple(scored), tuple(dropped))


def described(
    words: Sequence[TaggedWord], data: PromptedData
) -> Iterator[tuple[int, slice, Category]]:
    """Yield what of a prompt describes something drawn: a word's index, its characters, its kind.

    A noun of several words (``hot dog``) is one.
    """
    for index, word in enumerate(words):
        category = _category_of(word, data)
        if category is None:
            continue
        if category == data.noun and index and same_noun(words[index - 1], word):
            continue
        stop = word.stop
        for other in words[index + 1 :]:
            if category != data.noun or not same_noun(word, other):
                break
            stop = other.stop
        yield index, slice(word.start, stop), category


def _category_of(word: TaggedWord, data: PromptedData) -> Category | None:
    """Return a word's kind; None for one that describes nothing drawn, and for determiners."""
    if word.referent is None or word.tag == "DET":
        return None
    if word.referent == GROUND:
        return "ground"
    if word.tag == "NOUN":
        return data.noun
    if word.tag == "NUM":
        return "number"
    if word.text in data.colours:
        return "colour"
    return "size" if word.text in SIZES else None


def _several_objects(scene: AskedScene, masks: dict[int, Mask]) -> bool:
    found = {
        word.referent: masks[index]
        for index, word in enumerate(scene.words)
        if index in masks and word.referent is not None and word.referent != GROUND
    }
    first, *others = found.values() or (None,)
    return first is not None and any(not np.array_equal(first, other) for other in others)
