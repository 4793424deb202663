"""Heads and parts of speech that a CoNLL-U file hasn't, or has wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest

from wordlight.attribution.testing.model import ToyModel
from wordlight.comparisons.datasets.tagged_text import TaggingError, read_conllu
from wordlight.comparisons.studies.influence import study_influence
from wordlight.comparisons.studies.texts import given_texts


def conllu(path: Path, *rows: tuple[str, str, str, str]) -> Path:
    """Number, word, part of speech and head of each word of one sentence."""
    lines = [f"{n}\t{word}\t_\t{tag}\t_\t_\t{head}\tdep\t_\t_" for n, word, tag, head in rows]
    text = " ".join(word for _, word, _, _ in rows)
    path.write_text("\n".join([f"# text = {text}", *lines, ""]))
    return path


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ((("1", "a", "DET", "3"), ("2", "dog", "NOUN", "0")), "line 2: the head '3' is no word's"),
        ((("1", "a", "DET", "x"), ("2", "dog", "NOUN", "0")), "line 2: the head 'x' is no word's"),
        ((("1", "a", "DET", "2"), ("1", "dog", "NOUN", "0")), "line 3: '1' stands twice"),
        ((("one", "a", "DET", "0"),), "line 2: 'one' is no word's number"),
    ],
)
def test_heads_that_are_no_words(tmp_path, rows, says):
    with pytest.raises(TaggingError, match=says):
        list(read_conllu(conllu(tmp_path / "bad.conllu", *rows)))


def test_a_head_that_is_not_given_is_none(tmp_path):
    rows = ("1", "a", "DET", "_"), ("2", "dog", "NOUN", "0"), ("3", "runs", "VERB", "2")
    (sentence,) = read_conllu(conllu(tmp_path / "some.conllu", *rows))
    assert [token.head for token in sentence.tokens] == [None, None, 1]


def test_a_word_without_a_part_of_speech_is_named(tmp_path):
    path = conllu(tmp_path / "untagged.conllu", ("1", "a", "DET", "2"), ("2", "dog", "_", "0"))
    texts = given_texts(read_conllu(path), str(path), 4)
    with pytest.raises(ValueError, match=r"untagged\.conllu give 'dog' in 'a dog' no part of sp"):
        study_influence(ToyModel(), texts, steps=1)
