"""Studies on documents that spaCy holds: tagged beforehand, since its pipelines are models."""

from __future__ import annotations

import pytest
import spacy
from spacy.tokens import Doc

from wordlight.attribution.testing.model import ToyModel
from wordlight.comparisons.cli.main import main
from wordlight.comparisons.datasets.tagged_text import text_of_doc
from wordlight.comparisons.studies.influence import study_influence
from wordlight.comparisons.studies.relations import study_relations
from wordlight.comparisons.studies.texts import given_texts

#: Of one document: words, whether a blank follows, parts of speech, heads, relations.
PARSE = {
    "words": ["a", "dog", "does", "n't", "run", "."],
    "spaces": [True, True, False, True, False, False],
    "pos": ["DET", "NOUN", "AUX", "PART", "VERB", "PUNCT"],
    "heads": [1, 4, 4, 4, 4, 4],
    "deps": ["det", "nsubj", "aux", "neg", "ROOT", "punct"],
}


@pytest.fixture
def doc():
    return Doc(spacy.blank("en").vocab, **PARSE)


def test_a_document_is_studied_by_its_own_tags_and_heads(doc):
    texts = given_texts([text_of_doc(doc)], "a document", 5)
    assert texts.texts[0].text == "a dog doesn't run."
    found = study_relations(ToyModel(), texts, steps=1)
    # "does" and "n't" are written as one word, and have no map of their own.
    assert found.not_placed == 2
    assert {row.relation for row in found.rows[2:]} == {"det", "nsubj", "punct"}
    influence = study_influence(ToyModel(), texts, steps=1)
    assert {one.tag for one in influence.classes} == {"DET", "NOUN", "VERB", "PUNCT"}


def test_lines_of_a_file_are_tagged_by_the_pipeline_that_is_named(
    doc, tmp_path, monkeypatch, capsys
):
    class Pipeline:
        def pipe(self, texts):
            assert list(texts) == ["a dog doesn't run."]
            return [doc]

    monkeypatch.setattr(spacy, "load", lambda name: {"mine": Pipeline()}[name])
    monkeypatch.setattr("wordlight.backends.loading.load", lambda *_a, **_k: ToyModel())
    (tmp_path / "prompts.txt").write_text("\na dog doesn't run.\nnever asked for\n")
    line = ["study", "influence", "--prompts", str(tmp_path / "prompts.txt"), "--spacy", "mine"]
    assert main([*line, "-n", "1", "--steps", "1", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "tagged by mine" in printed
    assert "2 words without a map of their own" in printed


def test_a_pipeline_that_is_not_installed_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("wordlight.backends.loading.load", lambda *_a, **_k: ToyModel())
    (tmp_path / "prompts.txt").write_text("a dog")
    line = ["study", "influence", "--prompts", str(tmp_path / "prompts.txt")]
    assert main([*line, "--spacy", "en_core_nowhere", "--quiet"]) == 2
    assert "spaCy has no pipeline 'en_core_nowhere'" in capsys.readouterr().err
