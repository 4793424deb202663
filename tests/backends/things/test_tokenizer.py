"""The tokenizer of things: every word as planned, every prompt within the context."""

import numpy as np
import pytest

from wordlight.backends.things.grammar import Group, Scene, sample_scene, vocabulary
from wordlight.backends.things.nouns import NOUNS
from wordlight.backends.things.tokenizer import CONTEXT, TOKENS

TOKENIZER = TOKENS.build_tokenizer()


@pytest.mark.parametrize(
    ("word", "pieces"),
    [
        ("dog", ["dog</w>"]),
        ("dogs", ["dog", "s</w>"]),
        ("backpack", ["back", "pack</w>"]),
        ("backpacks", ["back", "pack", "s</w>"]),
        ("background", ["back", "ground</w>"]),
        ("wolves", ["wolves</w>"]),
        ("buses", ["buses</w>"]),
    ],
)
def test_words_are_cut_as_planned(word, pieces):
    assert TOKENIZER.tokenize(word) == pieces


def test_every_word_is_cut_as_planned():
    planned = {"".join(pieces): pieces for pieces in TOKENS.pieces}
    assert set(planned) == {word for word in vocabulary() if len(word) > 1}
    for word, pieces in planned.items():
        assert TOKENIZER.tokenize(word) == [*pieces[:-1], pieces[-1] + "</w>"], word


def test_the_longest_prompts_fit_the_context():
    nouns = sorted(NOUNS, key=lambda name: -len(TOKENIZER.tokenize(name)))[:3]
    groups = tuple(Group(1, "small", "purple", noun) for noun in nouns)
    longest = [Scene(groups, None, "bricks", True)]
    plurals = sorted(NOUNS, key=lambda name: -len(TOKENIZER.tokenize(NOUNS[name].plural)))[:2]
    two = tuple(Group(2, "small", "purple", noun) for noun in plurals)
    longest.append(Scene(two, "left", "bricks", True))
    for scene in longest:
        assert len(TOKENIZER(scene.prompt).input_ids) <= CONTEXT


def test_words_begin_and_end_with_tokens():
    for seed in range(100):
        scene = sample_scene(np.random.default_rng(seed), "train")
        offsets = TOKENIZER(scene.prompt, return_offsets_mapping=True).offset_mapping[1:-1]
        starts, stops = {a for a, _ in offsets}, {b for _, b in offsets}
        assert {word.start for word in scene.words} <= starts
        assert {word.stop for word in scene.words} <= stops
