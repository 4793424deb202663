"""``wordlight study relations``: masks whose overlap is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.comparisons.painter import SIDE, Painter, planted
from wordlight.attribution import registry
from wordlight.attribution.testing.model import ToyModel
from wordlight.comparisons.cli.main import main
from wordlight.comparisons.datasets.tagged_text import TaggedText, TaggedToken
from wordlight.comparisons.studies.relations import (
    PAPER,
    RELATED,
    UNRELATED,
    overlaps,
    study_relations,
)
from wordlight.comparisons.studies.texts import StudyTexts

#: Rows where a word's map is 1.
MAPS = {
    "red": slice(0, 4),
    "dog": slice(2, 10),
    "and": slice(20, 40),
    "cat": slice(4, 6),
    ".": slice(0, 64),
}
TEXT = TaggedText(
    "red dog and cat.",
    (
        TaggedToken("red", 0, 3, "ADJ", 1, "amod"),
        TaggedToken("dog", 4, 7, "NOUN", None, "root"),
        TaggedToken("and", 8, 11, "CCONJ", 3, "cc"),
        TaggedToken("cat", 12, 15, "NOUN", 1, "conj"),
        TaggedToken(".", 15, 16, "PUNCT", 1, "punct"),
    ),
)


def blank(prompt, seed):
    return np.zeros((SIDE, SIDE, 3), np.uint8)


@pytest.fixture(autouse=True)
def method(monkeypatch):
    known = registry.get
    kind = planted(MAPS)
    monkeypatch.setattr(registry, "get", lambda name: kind if name == "planted" else known(name))


def numbers(row):
    return row.iod.mean, row.ioh.mean, row.iou.mean


def test_every_relation_has_the_overlap_on_paper():
    texts = StudyTexts("mine", (TEXT,), (0,), ("text-0",))
    found = study_relations(Painter(blank), texts, method="planted")
    rows = {row.relation: row for row in found.rows}
    assert list(rows) == [UNRELATED, RELATED, "amod", "cc", "conj", "punct"]
    # red 0..4, dog 2..10: 2 rows in common.
    assert numbers(rows["amod"]) == pytest.approx((2 / 4, 2 / 8, 2 / 10))
    # cat 4..6 lies inside dog.
    assert numbers(rows["conj"]) == pytest.approx((1, 2 / 8, 2 / 8))
    assert numbers(rows["cc"]) == (0, 0, 0)
    assert numbers(rows["punct"]) == pytest.approx((8 / 64, 1, 8 / 64))
    # Without punctuation: amod, cc and conj.
    assert numbers(rows[RELATED]) == pytest.approx((1.5 / 3, 0.5 / 3, (0.2 + 0.25) / 3))
    # red-and, red-cat, dog-and, none of which overlap; each in both roles.
    assert numbers(rows[UNRELATED]) == (0, 0, 0)
    assert rows[UNRELATED].iod.n == 6
    assert rows[UNRELATED].paper == PAPER[UNRELATED] == (0.651, 0.661)


def test_unrelated_pairs_count_in_both_roles():
    text = TaggedText(
        "red dog", (TaggedToken("red", 0, 3, "ADJ", None), TaggedToken("dog", 4, 7, "NOUN", None))
    )
    # Some word must have a head, or there is nothing to study.
    texts = StudyTexts("mine", (text, TEXT), (0, 1), ("a", "b"))
    (unrelated, *_) = study_relations(Painter(blank), texts, method="planted").rows
    assert unrelated.iod == unrelated.ioh
    assert unrelated.iod.mean == pytest.approx((2 / 4 + 2 / 8 + 6 * 0) / 8)


def test_texts_without_heads_are_refused():
    text = TaggedText("dog", (TaggedToken("dog", 0, 3, "NOUN"),))
    texts = StudyTexts("mine.conllu", (text,), (0,), ("a",))
    with pytest.raises(ValueError, match=r"mine\.conllu say of no word which head"):
        study_relations(Painter(blank), texts, method="planted")


@given(st.data())
def test_overlaps_are_bounded_and_change_sides_with_their_roles(data):
    one, other = (data.draw(arrays(bool, (4, 4)).filter(np.any)) for _ in range(2))
    iod, ioh, iou = overlaps(one, other)
    assert overlaps(other, one) == (ioh, iod, iou)
    assert 0 <= iou <= min(iod, ioh) <= max(iod, ioh) <= 1
    assert overlaps(one, one) == (1, 1, 1)
    # |D∪H| = |D| + |H| - |D∩H|; with an intersection, 1/IoU = 1/IoD + 1/IoH - 1.
    if iou:
        assert 1 / iou == pytest.approx(1 / iod + 1 / ioh - 1)


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="empty"):
        overlaps(np.zeros((2, 2), bool), np.ones((2, 2), bool))


CONLLU = """\
# text = red dog
1	red	red	ADJ	_	_	2	amod	_	_
2	dog	dog	NOUN	_	_	0	root	_	_

# text = dog and cat
1	dog	dog	NOUN	_	_	0	root	_	_
2	and	and	CCONJ	_	_	3	cc	_	_
3	cat	cat	NOUN	_	_	1	conj	_	_
"""


def test_the_command_prints_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("wordlight.backends.loading.load", lambda *_a, **_k: ToyModel())
    (tmp_path / "texts.conllu").write_text(CONLLU)
    line = ["study", "relations", "--conllu", str(tmp_path / "texts.conllu"), "-n", "2"]
    line += ["--steps", "1", "--quiet"]
    out = tmp_path / "out"
    assert main([*line, "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert (out / "relations.txt").read_text() == printed
    assert "0.651/0.661" in printed
    assert main([*line, "--json", "--threshold", "0"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {row["relation"] for row in data["rows"]} == {UNRELATED, RELATED, "amod", "cc", "conj"}
    # At 0 every mask is the whole image.
    assert all(row["miou"]["mean"] == 1 for row in data["rows"])
    assert main([*line, "--threshold", "1.5"]) == 2
    assert "a threshold lies between 0 and 1" in capsys.readouterr().err
