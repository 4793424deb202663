"""The grammar's parts of speech and heads, against trees drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wordlight.backends.prompted_data import DATA
from wordlight.backends.prompts import AskedScene
from wordlight.backends.scenes import grammar as scenes
from wordlight.backends.scenes.grammar import Group, Scene
from wordlight.backends.things import grammar as things
from wordlight.comparisons.cli.main import main
from wordlight.comparisons.datasets.tagged_text import read_conllu
from wordlight.comparisons.datasets.tags_of_scenes import tag_scene

RED = Group(1, None, "red", "circle")
SQUARES = Group(2, "small", "blue", "square")


def tree(scene: AskedScene) -> list[str]:
    tokens = tag_scene(scene).tokens
    return [
        f"{t.text} {t.relation} {'-' if t.head is None else tokens[t.head].text}" for t in tokens
    ]


def test_a_relation_goes_through_its_side():
    scene = Scene((RED, SQUARES), "left", "black", full_stop=True)
    assert scene.prompt == (
        "a red circle to the left of two small blue squares on a black background."
    )
    assert tree(scene) == [
        "a det circle",
        "red amod circle",
        "circle root -",
        "to case left",
        "the det left",
        "left nmod circle",
        "of case squares",
        "two nummod squares",
        "small amod squares",
        "blue amod squares",
        "squares nmod left",
        "on case background",
        "a det background",
        "black amod background",
        "background nmod circle",
        ". punct circle",
    ]


def test_a_list_has_conjuncts():
    scene = Scene((RED, SQUARES, Group(1, None, "green", "cross")), None, None, full_stop=False)
    assert [line for line in tree(scene) if "amod" not in line and "nummod" not in line] == [
        "a det circle",
        "circle root -",
        ", punct squares",
        "squares conj circle",
        "and cc cross",
        "a det cross",
        "cross conj circle",
    ]


@pytest.mark.parametrize("relation", ["above", "below"])
def test_above_and_below_are_cases(relation):
    lines = tree(Scene((RED, SQUARES), relation, None, full_stop=False))
    assert f"{relation} case squares" in lines
    assert "squares nmod circle" in lines


def test_nouns_of_several_words_and_the_side_of_a_ground():
    groups = (things.Group(1, None, None, "hot dog"), things.Group(2, None, None, "cat"))
    scene = things.Scene(groups, "and", "bricks", full_stop=False)
    assert scene.prompt == "a hot dog and two cats in front of a brick wall"
    assert tree(scene) == [
        "a det dog",
        "hot compound dog",
        "dog root -",
        "and cc cats",
        "two nummod cats",
        "cats conj dog",
        "in case front",
        "front nmod dog",
        "of case wall",
        "a det wall",
        "brick compound wall",
        "wall nmod front",
    ]


@given(seed=st.integers(0, 10_000), of=st.sampled_from([scenes, things]), data=st.data())
def test_every_prompt_is_a_tree_over_its_words(seed, of, data):
    split = data.draw(st.sampled_from(of.SPLITS))
    scene = of.sample_scene(np.random.default_rng(seed), split)
    text = tag_scene(scene)
    assert text.text == scene.prompt
    assert [scene.prompt[t.start : t.stop] for t in text.tokens] == [t.text for t in text.tokens]
    assert [t.tag for t in text.tokens] == [w.tag for w in scene.words]
    assert sum(t.head is None for t in text.tokens) == 1
    for index, token in enumerate(text.tokens):
        place, steps = index, 0
        while text.tokens[place].head is not None:
            place, steps = text.tokens[place].head, steps + 1
            assert steps <= len(text.tokens), "a circle of heads"
        if token.relation in ("amod", "nummod"):
            # What describes an object depends on the noun that names it.
            assert scene.words[index].referent == scene.words[token.head].referent


@pytest.mark.parametrize("kind", ["scenes", "things"])
def test_prompts_are_written_with_their_tags(kind, tmp_path, capsys):
    assert main(["data", "prompts", kind, "-n", "6", "-o", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"6 prompts in {tmp_path}\n"
    texts = [tag_scene(DATA[kind].rendered("test", index).scene) for index in range(6)]
    assert list(read_conllu(tmp_path / "prompts.conllu")) == texts
    assert (tmp_path / "prompts.txt").read_text().splitlines() == [text.text for text in texts]
    assert main(["data", "prompts", kind, "--split", "none", "-o", str(tmp_path)]) == 2
    assert "no split 'none'; there are train" in capsys.readouterr().err
