"""``wordlight study influence``: regions that are known, and words whose effect is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.comparisons.painter import SIDE, Painter, planted, words_of
from wordlight.attribution import registry
from wordlight.attribution.testing.model import ToyModel
from wordlight.attribution.words import PromptWords
from wordlight.comparisons.cli.main import main
from wordlight.comparisons.datasets.tagged_text import TaggedText, TaggedToken
from wordlight.comparisons.studies.influence import (
    CHANGED,
    PAPER_SPREAD,
    image_change,
    study_influence,
)
from wordlight.comparisons.studies.texts import StudyTexts, place_words

#: Rows that a word paints white.
ROWS = {"dog": slice(0, 16), "cat": slice(16, 20), "red": slice(8, 40), "and": slice(0, 0)}
#: Rows where its map is 1.
MAPS = {"dog": slice(0, 32), "cat": slice(0, 8), "red": slice(0, 4), "and": slice(0, 64)}
TAGS = {"dog": "NOUN", "cat": "NOUN", "red": "ADJ", "and": "CCONJ"}
SEEDS = (5, 6, 7)


def paint(prompt, seed):
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    for word in words_of(prompt):
        image[ROWS[word]] = 255
    # Other noise than any that was asked for gives another image.
    return image if seed in SEEDS else 255 - image


def tagged(text):
    tokens, place = [], 0
    for word in words_of(text):
        place = text.index(word, place)
        tokens.append(TaggedToken(word, place, place + len(word), TAGS[word]))
        place += len(word)
    return TaggedText(text, tuple(tokens))


def texts(*prompts):
    names = tuple(f"text-{i}" for i in range(len(prompts)))
    return StudyTexts("mine", tuple(map(tagged, prompts)), SEEDS[: len(prompts)], names)


@pytest.fixture(autouse=True)
def method(monkeypatch):
    known = registry.get
    kind = planted(MAPS)
    monkeypatch.setattr(registry, "get", lambda name: kind if name == "planted" else known(name))


def test_both_measures_are_those_on_paper():
    backend = Painter(paint)
    found = study_influence(backend, texts("red dog and cat", "red cat", "dog"), method="planted")
    by_tag = {one.tag: one for one in found.classes}
    # Maps: and 1; dog 1/2 and cat 1/8, twice each; red 1/16.
    assert [one.tag for one in found.classes] == ["CCONJ", "NOUN", "ADJ"]
    assert by_tag["NOUN"].spread.mean == pytest.approx((0.5 + 0.125 + 0.125 + 0.5) / 4)
    assert by_tag["NOUN"].spread.n == 4
    assert by_tag["ADJ"].spread.mean == 0.0625
    assert by_tag["CCONJ"].spread.mean == 1
    # Without dog and cat 8 of 64 rows go black in the first image, none in the second; the third
    # would have no word left.
    assert by_tag["NOUN"].changed.mean == pytest.approx((8 / 64 + 0) / 2)
    assert by_tag["NOUN"].changed.n == 2
    assert by_tag["NOUN"].words_out == 1.5
    # Without red 20 rows of 8..40 in the first, 28 in the second.
    assert by_tag["ADJ"].changed.mean == pytest.approx((20 / 64 + 28 / 64) / 2)
    # From white to black is a change of 1, so the mean change is the share.
    assert by_tag["ADJ"].change == by_tag["ADJ"].changed
    # A word that paints nothing changes nothing, however far its map spreads.
    assert by_tag["CCONJ"].changed.mean == 0
    assert found.other_noise[0].mean == 1
    assert by_tag["NOUN"].paper == PAPER_SPREAD["NOUN"]
    # CCONJ, NOUN, ADJ: 1, .31, .06 and 0, .06, .375: the other way round.
    assert found.rank_correlation("spread", "changed") == (pytest.approx(-1), 3)


def test_words_are_taken_out_at_the_same_noise():
    backend = Painter(paint)
    study_influence(backend, texts("red dog and cat"), method="planted")
    first, *again, other = backend.asked
    assert first == ("red dog and cat", 5)
    assert sorted(again) == [("dog and cat", 5), ("red and", 5), ("red dog cat", 5)]
    assert other[0] == "red dog and cat"
    assert other[1] != 5


def test_a_rank_correlation_needs_three_classes():
    found = study_influence(Painter(paint), texts("red dog"), method="planted")
    value, count = found.rank_correlation("spread", "changed")
    assert np.isnan(value)
    assert count == 2
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["images"] == 1


def test_a_small_change_is_none_and_grey_counts_by_its_distance():
    black = np.zeros((10, 10, 3), np.uint8)
    grey = black.copy()
    grey[:5] = 51  # a fifth of white
    grey[5:] = int(255 * CHANGED) - 1
    share, mean = image_change(black, grey)
    assert share == 0.5
    assert mean == pytest.approx((0.2 + 24 / 255) / 2)
    assert image_change(grey, black) == (share, mean)


def test_halves_of_a_word_have_no_map_of_their_own():
    text = TaggedText(
        "don't go",
        (
            TaggedToken("do", 0, 2, "AUX"),
            TaggedToken("n't", 2, 5, "PART"),
            TaggedToken("go", 6, 8, "VERB"),
        ),
    )
    words = PromptWords.of(Painter(paint).tokenize(text.text))
    assert {i: w.text for i, w in place_words(text, words).items()} == {2: "go"}


CONLLU = """\
# text = red dog
1	red	red	ADJ	_	_	2	amod	_	_
2	dog	dog	NOUN	_	_	0	root	_	_

# text = dog and cat
1	dog	dog	NOUN	_	_	0	root	_	_
2	and	and	CCONJ	_	_	3	cc	_	_
3	cat	cat	NOUN	_	_	1	conj	_	_
"""


@pytest.fixture
def line(tmp_path, monkeypatch):
    """A command on a small diffusion model that really attends and draws."""
    monkeypatch.setattr("wordlight.backends.loading.load", lambda *_a, **_k: ToyModel())
    (tmp_path / "texts.conllu").write_text(CONLLU)
    given = ["--conllu", str(tmp_path / "texts.conllu")]
    return ["study", "influence", *given, "-n", "2", "--steps", "1", "--quiet"]


def test_the_command_prints_and_writes(line, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*line, "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert (out / "influence.txt").read_text() == printed
    assert "daam on 2 images by toy" in printed
    assert "0.289" in printed  # what the paper found for adjectives
    assert main([*line, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data == json.loads((out / "influence.json").read_text())
    assert {c["tag"] for c in data["classes"]} == {"ADJ", "NOUN", "CCONJ"}
    nouns = next(c for c in data["classes"] if c["tag"] == "NOUN")
    assert nouns["spread"]["n"] == 3
    # An untrained model's image does change with its prompt.
    assert all(c["change"]["mean"] > 0 for c in data["classes"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--method", "dam"], "dam"),
        (["--spacy", "en"], "--prompts and --spacy go together"),
        (["--prompts", "x.txt", "--spacy", "en"], "give --conllu or --prompts, not both"),
        (["--conllu", "nowhere.conllu"], "nowhere.conllu"),
    ],
)
def test_bad_input_is_one_line(line, capsys, more, message):
    assert main([*line, *more]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("wordlight: error: ")
    assert message in error


def test_an_empty_file_is_named(line, tmp_path, capsys):
    (tmp_path / "texts.conllu").write_text("\n")
    assert main(line) == 2
    assert "there is no sentence in" in capsys.readouterr().err
