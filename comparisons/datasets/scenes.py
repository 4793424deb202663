"""The words of a generated scene, with the masks that are found in the image."""

from __future__ import annotations

import numpy as np

from wordlight.attribution.words import PromptWords
from wordlight.backends.prompts import GROUND, SIZES, TaggedWord
from wordlight.backends.scenes.grammar import COLOURS, Scene
from wordlight.backends.scenes.segment import segment
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.datasets.item import Category, DatasetItem, Mask, ScoredWord


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
        category = category_of(tagged)
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


def category_of(word: TaggedWord) -> Category | None:
    """Return a word's kind; None for one that describes nothing drawn, and for determiners."""
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
