"""The tokenizer: any text, CLIP's way, and the pieces that were planned."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from wordlight.backends.scenes.tokenizer import (
    BOS_ID,
    CONTEXT,
    EOS_ID,
    build_tokenizer,
    vocabulary,
)
from wordlight.backends.training.rendering import token_ids

TOKENIZER = build_tokenizer()


def without_space(text):
    """What CLIP's normalization and a round trip through tokens leave of a text."""
    # Letter by letter: a final sigma is none of its own.
    lower = "".join(c.lower() for c in unicodedata.normalize("NFC", text))
    return "".join(c for c in lower if not c.isspace())


@given(st.text())
def test_any_text_comes_back_in_lower_case(text):
    ids = TOKENIZER(text).input_ids
    assert ids[0] == BOS_ID
    assert ids[-1] == EOS_ID
    assert EOS_ID not in ids[1:-1], "a symbol was unknown"
    assert without_space(TOKENIZER.decode(ids[1:-1])) == without_space(text)


@pytest.mark.parametrize("text", ["a 🦊 and a 日本 cross", "RED Circle!", "naïve café", "", "\0"])
def test_some_texts_come_back(text):
    ids = TOKENIZER(text).input_ids
    assert EOS_ID not in ids[1:-1]
    assert without_space(TOKENIZER.decode(ids[1:-1])) == without_space(text)


@pytest.mark.parametrize(
    ("word", "pieces"),
    [
        ("triangle", ["tri", "angle</w>"]),
        ("triangles", ["tri", "angle", "s</w>"]),
        ("background", ["back", "ground</w>"]),
        ("circle", ["circle</w>"]),
        ("circles", ["circle", "s</w>"]),
        ("squares", ["square", "s</w>"]),
        ("crosses", ["cross", "es</w>"]),
        ("cross", ["cross</w>"]),
        ("a", ["a</w>"]),
        (".", [".</w>"]),
        (",", [",</w>"]),
        ("dog", ["d", "o", "g</w>"]),
    ],
)
def test_words_are_cut_as_planned(word, pieces):
    assert TOKENIZER.tokenize(word) == pieces


def test_one_word_tokens_stand_alone_in_a_sentence():
    text = "an orange cross to the left of two small purple circles on a gray background."
    pieces = (
        "an</w> orange</w> cross</w> to</w> the</w> left</w> of</w> two</w> small</w> purple</w> "
        "circle s</w> on</w> a</w> gray</w> back ground</w> .</w>"
    )
    assert TOKENIZER.tokenize(text) == pieces.split()


def test_every_prompt_fits_the_context(scenes):
    @given(scenes)
    def check(scene):
        ids = TOKENIZER(scene.prompt).input_ids
        assert len(ids) <= CONTEXT
        assert len(ids) >= len(scene.words) + 2

    check()


def test_offsets_lead_back_to_the_words(scenes):
    @given(scenes)
    def check(scene):
        offsets = TOKENIZER(scene.prompt, return_offsets_mapping=True).offset_mapping[1:-1]
        starts, stops = {a for a, _ in offsets}, {b for _, b in offsets}
        assert {w.start for w in scene.words} <= starts
        assert {w.stop for w in scene.words} <= stops

    check()


def test_batches_are_padded_to_the_context():
    ids = token_ids(TOKENIZER, ["", "a red circle"])
    assert ids.shape == (2, CONTEXT)
    assert ids[0].tolist() == [BOS_ID] + [EOS_ID] * (CONTEXT - 1)
    assert ids[1, 4:].tolist() == [EOS_ID] * (CONTEXT - 4)


def test_ids_are_the_vocabulary_without_gaps():
    assert sorted(vocabulary().values()) == list(range(len(TOKENIZER)))
    assert TOKENIZER.model_max_length == CONTEXT


def test_a_saved_tokenizer_gives_the_same_ids(tmp_path, scenes):
    TOKENIZER.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    assert loaded.model_max_length == CONTEXT

    @given(st.one_of(st.text(), scenes.map(lambda scene: scene.prompt)))
    def check(text):
        assert loaded(text).input_ids == TOKENIZER(text).input_ids

    check()
