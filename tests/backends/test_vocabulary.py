"""Words outside a model's vocabulary, in the API and in the command line."""

import warnings

import pytest

from wordlight.backends.embedded import EMBEDDED
from wordlight.backends.prompted_data import SCENES, THINGS, data_of
from wordlight.backends.scenes import grammar
from wordlight.backends.vocabulary import (
    WORDS_FILE,
    UnknownWordsWarning,
    known_words,
    unknown_words,
    unknown_words_message,
    warn_of_unknown_words,
)
from wordlight.comparisons.cli.warned import warnings_as_lines


@pytest.mark.parametrize(
    ("name", "data"),
    [("scenes", SCENES), ("things", THINGS), ("things-dit", THINGS)],
)
def test_the_files_hold_the_words_of_the_grammar(name, data):
    assert known_words(name) == data.words
    assert data_of(name) is data


def test_a_folder_of_a_model_has_the_data_of_its_words(tmp_path):
    assert data_of(str(tmp_path)) is SCENES
    (tmp_path / WORDS_FILE).write_text("\n".join(THINGS.words), encoding="utf-8")
    assert data_of(str(tmp_path)) is THINGS


def test_every_prompt_of_the_grammar_is_known():
    import numpy as np

    rng = np.random.default_rng(0)
    for _ in range(200):
        assert unknown_words("scenes", grammar.sample_scene(rng, "test").prompt) == ()


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("A RED circle!", ()),
        ("a dog", ("dog",)),
        ("a mother-in-law's dog, a Dog", ("mother-in-law's", "dog")),
        ("a red circle (masterpiece:1.3)", ("masterpiece", "1", "3")),
        ("赤い丸", ("赤い丸",)),
        ("", ()),
        ("🙂", ("🙂",)),
        ("a red circle\u200b", ("\u200b",)),
        ("\u202ea red circle\x00\n", ("\u202e", "\x00")),
    ],
)
def test_unknown_words_are_named_once_in_order(prompt, words):
    assert unknown_words("scenes", prompt) == words


def test_a_folder_says_its_words_and_a_hub_id_has_none(tmp_path):
    (tmp_path / WORDS_FILE).write_text("a\nDog\n")
    assert unknown_words(str(tmp_path), "a dog, a cat") == ("cat",)
    assert known_words("owner/name") is None
    assert known_words("x" * 5000) is None
    assert unknown_words_message("owner/name", "a dog") is None


def test_the_warning_names_the_word_and_what_would_be_right():
    with pytest.warns(
        UnknownWordsWarning, match=r"scenes was .* word 'dog'.*It knows: a, .*yellow"
    ):
        warn_of_unknown_words("scenes", "a red dog")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unknown_words("scenes", "a red circle")


def test_many_are_named_thrice_and_counted(capsys):
    with warnings_as_lines():
        for number in range(5):
            warn_of_unknown_words("scenes", f"a dog{number}")
        with warnings.catch_warnings():
            warnings.simplefilter("always")  # not an error, as elsewhere in the tests
            warnings.warn("another\nthing", UserWarning, stacklevel=1)
    lines = capsys.readouterr().err.splitlines()
    assert [line.count("never trained") for line in lines] == [1, 1, 1, 0, 1]
    assert lines[3] == "wordlight: warning: another thing"
    assert lines[4].startswith("wordlight: warning: 2 more prompts")


def test_the_words_are_no_part_of_the_revision(tmp_path):
    from wordlight.backends.model_folder import revision_of

    (tmp_path / "model_index.json").write_text("{}")
    before = revision_of(tmp_path)
    (tmp_path / WORDS_FILE).write_text("a\n")
    assert revision_of(tmp_path) == before
    assert (EMBEDDED["scenes"] / WORDS_FILE).is_file()


def test_symbols_are_words_that_no_model_was_trained_on():
    assert unknown_words("scenes", "a red \N{LARGE RED CIRCLE} and a \N{BLACK STAR}") == (
        "\N{LARGE RED CIRCLE}",
        "\N{BLACK STAR}",
    )
    assert unknown_words("scenes", "a \u201cred\u201d circle\u2026") == ()
