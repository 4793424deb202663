"""The prompts of things: tagged word by word, parted into splits by their text."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wordlight.backends.prompts import GROUND
from wordlight.backends.things.grammar import (
    SPLITS,
    Group,
    Scene,
    is_unseen,
    sample_scene,
    split_of,
    vocabulary,
)
from wordlight.backends.things.nouns import LOOK_ALIKES, NOUNS, look_alike

SEEDS = st.integers(0, 2**32 - 1)
#: Drawing from a rare split takes many tries.
COMMON = ("train", "test")


def sampled(seed: int, split: str) -> Scene:
    return sample_scene(np.random.default_rng(seed), split)


def test_a_prompt_is_spelled_and_tagged_as_on_paper():
    groups = (Group(2, "small", None, "dog"), Group(1, None, "red", "wine glass"))
    scene = Scene(groups, relation="left", ground="bricks", full_stop=True)
    assert scene.prompt == (
        "two small dogs to the left of a red wine glass in front of a brick wall."
    )
    assert [(w.text, w.tag, w.referent) for w in scene.words] == [
        ("two", "NUM", 0),
        ("small", "ADJ", 0),
        ("dogs", "NOUN", 0),
        ("to", "ADP", None),
        ("the", "DET", None),
        ("left", "NOUN", None),
        ("of", "ADP", None),
        ("a", "DET", 1),
        ("red", "ADJ", 1),
        ("wine", "NOUN", 1),
        ("glass", "NOUN", 1),
        ("in", "ADP", None),
        ("front", "NOUN", None),
        ("of", "ADP", None),
        ("a", "DET", GROUND),
        ("brick", "NOUN", GROUND),
        ("wall", "NOUN", GROUND),
        (".", "PUNCT", None),
    ]


@pytest.mark.parametrize(
    ("group", "phrase"),
    [
        (Group(1, None, None, "apple"), "an apple"),
        (Group(1, "small", None, "apple"), "a small apple"),
        (Group(1, None, None, "scissors"), "some scissors"),
        (Group(2, None, None, "scissors"), "two scissors"),
        (Group(3, None, None, "person"), "three people"),
        (Group(1, None, None, "sheep"), "a sheep"),
        (Group(2, None, "blue", "mouse"), "two blue mice"),
    ],
)
def test_phrases(group, phrase):
    assert Scene((group,), None, None, False).prompt == phrase


@settings(max_examples=40)
@given(SEEDS, st.sampled_from(COMMON))
def test_words_lie_where_they_say_and_every_group_is_named(seed, split):
    scene = sampled(seed, split)
    assert all(scene.prompt[w.start : w.stop] == w.text for w in scene.words)
    nouns = {w.referent for w in scene.words if w.tag == "NOUN" and w.referent is not None}
    assert nouns == set(range(len(scene.groups))) | ({GROUND} if scene.ground else set())
    known = vocabulary()
    assert all(w.text in known for w in scene.words if w.tag != "PUNCT")


@settings(max_examples=40)
@given(SEEDS, st.sampled_from(COMMON))
def test_the_same_seed_draws_the_same_scene_of_the_split(seed, split):
    scene = sampled(seed, split)
    assert scene == sampled(seed, split)
    assert split_of(scene) == split


@given(SEEDS)
def test_a_prompt_and_its_twin_are_in_one_split(seed):
    scene = sampled(seed, "train")
    twin = Scene(scene.groups, scene.relation, scene.ground, not scene.full_stop)
    assert twin.prompt != scene.prompt
    assert split_of(twin) == "train"


def test_no_prompt_is_in_two_splits():
    prompts = {
        split: {sampled(seed, split).prompt.removesuffix(".") for seed in range(20)}
        for split in SPLITS
    }
    for one, other in itertools.combinations(SPLITS, 2):
        assert not prompts[one] & prompts[other]


def test_unseen_pairs_are_asked_for_in_their_split_alone():
    for seed in range(15):
        assert any(is_unseen(pair) for pair in sampled(seed, "unseen-pairs").pairs)
    for seed in range(400):
        assert not any(is_unseen(pair) for pair in sampled(seed, "train").pairs)


def test_some_pairs_are_unseen_and_no_noun_is_left_without_pairs():
    pairs = list(itertools.combinations(sorted(NOUNS), 2))
    unseen = [pair for pair in pairs if is_unseen(pair)]
    # Five of a hundred by a hash: 162 of 3240 on average, 12 to either side.
    assert 110 < len(unseen) < 210
    assert all(is_unseen((b, a)) for a, b in unseen)
    per_noun = [sum(name in pair for pair in unseen) for name in NOUNS]
    assert max(per_noun) < 20


def test_look_alikes_are_a_split_of_their_own_and_in_training():
    for seed in range(12):
        assert any(look_alike(*pair) for pair in sampled(seed, "look-alikes").pairs)
        assert not any(look_alike(*pair) for pair in sampled(seed, "test").pairs)
    trained = [sampled(seed, "train") for seed in range(300)]
    assert any(look_alike(*pair) for scene in trained for pair in scene.pairs)


def test_look_alikes_are_nouns_and_held_together_by_a_family():
    assert all(name in NOUNS for family in LOOK_ALIKES for name in family)
    assert look_alike("dog", "wolf")
    assert not look_alike("dog", "dog")
    assert not look_alike("dog", "tiger")


def test_nouns_are_cocos_and_more():
    coco = [noun.coco for noun in NOUNS.values() if noun.coco]
    assert len(coco) == len(set(coco)) == 64
    assert len(NOUNS) == 81


def test_the_draw_is_varied():
    scenes = [sampled(seed, "train") for seed in range(1500)]
    assert {group.noun for scene in scenes for group in scene.groups} == set(NOUNS)
    assert {scene.relation for scene in scenes} == {None, "and", "left", "right", "above", "below"}
    assert {sum(group.count for group in scene.groups) for scene in scenes} == {1, 2, 3}
    coloured = {group.noun for scene in scenes for group in scene.groups if group.colour}
    assert coloured <= {name for name, noun in NOUNS.items() if noun.tinted}


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match=r"no split 'dev'; there are train, validation"):
        sampled(0, "dev")
