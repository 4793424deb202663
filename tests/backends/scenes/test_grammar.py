"""The prompts: cut into words exactly, parted into splits by their text."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wordlight.backends.prompts import GROUND
from wordlight.backends.scenes.grammar import (
    SPLITS,
    UNSEEN_PAIRS,
    Group,
    Scene,
    sample_scene,
    split_of,
)

SEEDS = st.integers(0, 2**32 - 1)
TRAINED_SPLITS = [split for split in SPLITS if split != "unseen-pairs"]


def sampled(seed: int, split: str) -> Scene:
    return sample_scene(np.random.default_rng(seed), split)


def test_a_prompt_is_spelled_and_tagged_as_on_paper():
    scene = Scene(
        groups=(Group(1, None, "orange", "circle"), Group(2, "small", "blue", "cross")),
        relation="left",
        ground="black",
        full_stop=True,
    )
    assert scene.prompt == (
        "an orange circle to the left of two small blue crosses on a black background."
    )
    assert [(w.text, w.tag, w.referent) for w in scene.words] == [
        ("an", "DET", 0),
        ("orange", "ADJ", 0),
        ("circle", "NOUN", 0),
        ("to", "ADP", None),
        ("the", "DET", None),
        ("left", "NOUN", None),
        ("of", "ADP", None),
        ("two", "NUM", 1),
        ("small", "ADJ", 1),
        ("blue", "ADJ", 1),
        ("crosses", "NOUN", 1),
        ("on", "ADP", None),
        ("a", "DET", GROUND),
        ("black", "ADJ", GROUND),
        ("background", "NOUN", GROUND),
        (".", "PUNCT", None),
    ]


def test_three_groups_are_listed():
    groups = (
        Group(1, None, "red", "circle"),
        Group(1, "large", "green", "square"),
        Group(1, None, "yellow", "triangle"),
    )
    scene = Scene(groups, relation=None, ground=None, full_stop=False)
    assert scene.prompt == "a red circle, a large green square and a yellow triangle"


def test_spans_cut_the_prompt_exactly_into_its_words(scenes):
    @given(scenes)
    def check(scene):
        words = scene.words
        assert [scene.prompt[w.start : w.stop] for w in words] == [w.text for w in words]
        gaps = [scene.prompt[a.stop : b.start] for a, b in itertools.pairwise(words)]
        assert set(gaps) <= {" ", ""}
        # Nothing but a punctuation mark is written without a space before it.
        assert all(gap or b.tag == "PUNCT" for gap, b in zip(gaps, words[1:], strict=True))
        assert words[0].start == 0
        assert words[-1].stop == len(scene.prompt)

    check()


def test_every_group_and_the_ground_are_named(scenes):
    @given(scenes)
    def check(scene):
        named = {w.referent for w in scene.words if w.tag == "NOUN" and w.referent is not None}
        wanted = set(range(len(scene.groups)))
        assert named == wanted | ({GROUND} if scene.ground else set())

    check()


def test_different_scenes_have_different_prompts(scenes):
    @given(scenes, scenes)
    def check(one, other):
        assert (one == other) == (one.prompt == other.prompt)

    check()


@given(SEEDS, st.sampled_from(SPLITS))
def test_the_same_seed_draws_the_same_scene_of_the_split_asked_for(seed, split):
    scene = sampled(seed, split)
    assert scene == sampled(seed, split)
    assert split_of(scene) == split


@given(SEEDS, st.sampled_from(TRAINED_SPLITS))
def test_unseen_pairs_are_asked_for_nowhere_else(seed, split):
    assert not sampled(seed, split).pairs & UNSEEN_PAIRS


@given(SEEDS)
def test_unseen_pairs_are_asked_for_in_their_split(seed):
    assert sampled(seed, "unseen-pairs").pairs & UNSEEN_PAIRS


def test_no_prompt_is_in_two_splits():
    prompts = {split: {sampled(seed, split).prompt for seed in range(300)} for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not prompts[one] & prompts[other]


def test_the_draw_is_varied():
    scenes = [sampled(seed, "train") for seed in range(400)]
    assert len({s.prompt for s in scenes}) > 300
    assert {g.colour for s in scenes for g in s.groups} == set(
        "red green blue yellow purple orange".split()
    )
    assert {s.relation for s in scenes} == {None, "and", "left", "right", "above", "below"}
    assert {s.ground for s in scenes} == {None, "black", "white", "gray"}
    assert {sum(g.count for g in s.groups) for s in scenes} == {1, 2, 3, 4}


def test_an_unknown_split_is_named():
    with pytest.raises(ValueError, match=r"no split 'dev'; there are train, validation"):
        sampled(0, "dev")
