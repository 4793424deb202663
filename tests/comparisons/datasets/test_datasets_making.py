"""Sets of drawn images, made from captions."""

from __future__ import annotations

import json
import re
import shutil
import types

import numpy as np
import pytest
from PIL import Image

from tests.comparisons import dataset_files as files
from tests.comparisons.fakes import FakeBackend
from wordlight.comparisons.cli.main import main
from wordlight.comparisons.datasets import DatasetError, open_dataset
from wordlight.comparisons.datasets.making import (
    Caption,
    make,
    noise_seed,
    read_captions,
    shuffled,
    unreal_captions,
)
from wordlight.comparisons.datasets.tagged_text import (
    TaggingError,
    read_conllu,
    tag_by_spacy,
    text_of_doc,
)
from wordlight.comparisons.store.lock import RunInUseError, locked

TEXTS = (
    "a red circle on a black background",
    "two small dogs and a happy cat",
    "a cat sees a red dog",
    "the large bus",
)
TAGS = {
    **dict.fromkeys(["circle", "background", "dogs", "dog", "cat", "bus"], "NOUN"),
    **dict.fromkeys(["red", "black", "small", "happy", "large"], "ADJ"),
}


@pytest.fixture
def captions_file(tmp_path):
    path = tmp_path / "captions_val2014.json"
    rows = [
        {"id": 10 * image + k, "image_id": image, "caption": f"{text}{'.' * k}\n"}
        for image, text in enumerate(TEXTS)
        for k in range(2)
    ]
    path.write_text(json.dumps({"annotations": rows}))
    return path


@pytest.fixture
def tags_file(tmp_path):
    lines = []
    for text in TEXTS:
        for dots in ("", "."):
            lines.append(f"# text = {text}{dots}")
            words = [*text.split(), *dots]
            for number, word in enumerate(words, 1):
                tag = TAGS.get(word, "PUNCT" if word == "." else "X")
                lines.append(f"{number}\t{word}\t{word}\t{tag}\t_\t_\t0\troot\t_\t_")
            lines.append("")
    path = tmp_path / "captions.conllu"
    path.write_text("\n".join(lines))
    return path


def tree(folder):
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    # Beside the settings it stands when the set was begun.
    return {**found, "settings.json": json.loads(found["settings.json"])["settings"]}


def test_what_is_made_reads_back_as_coco_gen(captions_file, tmp_path):
    backend = FakeBackend()
    captions = shuffled(read_captions(captions_file), 0)
    made = make(captions, backend, tmp_path / "set", 3)
    assert (made.there, made.drawn, made.left_out) == (3, 3, ())
    # Somebody annotates one.
    first = captions[0]
    word = "cat" if "cat" in first.text else first.text.split()[-1].rstrip(".")
    files.save_alpha(tmp_path / f"set/{first.image}/{word}.gt.png", np.eye(64, dtype=bool))
    (item,) = open_dataset(f"coco-gen:{tmp_path / 'set'}")
    assert (item.sample, item.prompt) == (str(first.image), first.text)
    assert item.seed == noise_seed(0, first.image)
    drawn = backend.sample(first.text, seed=item.seed)
    np.testing.assert_array_equal(item.image, drawn.image)


def test_making_goes_on_where_it_was_and_adds_images(captions_file, tmp_path):
    captions = shuffled(read_captions(captions_file), 0)
    make(captions, FakeBackend(), tmp_path / "whole", 4)

    class Stopped(FakeBackend):
        def _draw(self, prompt, seed):
            if len(self.drawn) == 2:
                raise KeyboardInterrupt
            return super()._draw(prompt, seed)

    parts = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        make(captions, Stopped(), parts, 4)
    (parts / ".making-killed").mkdir()
    (parts / f"{captions[0].image}/cat.gt.png").write_bytes(b"an annotator's")
    made = make(captions, FakeBackend(), parts, 3)
    assert (made.there, made.drawn) == (3, 1)
    make(captions, FakeBackend(), parts, 4)
    (parts / f"{captions[0].image}/cat.gt.png").unlink()
    assert tree(parts) == tree(tmp_path / "whole")
    assert not list(parts.glob(".making-*"))


def test_another_seed_is_another_set(captions_file, tmp_path):
    captions = read_captions(captions_file)
    make(shuffled(captions, 0), FakeBackend(), tmp_path / "set", 1)
    with pytest.raises(ValueError, match="seed was 0, now 1"):
        make(shuffled(captions, 0), FakeBackend(), tmp_path / "set", 1, seed=1)
    drawn_with = {"scheduler": "euler"}
    with pytest.raises(ValueError, match="scheduler is asked for now and wasn't there"):
        make(shuffled(captions, 0), FakeBackend(), tmp_path / "set", 1, drawn_with=drawn_with)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="holds something else"):
        make(shuffled(captions, 0), FakeBackend(), tmp_path / "other", 1)
    orders = {tuple(c.identity for c in shuffled(captions, seed)) for seed in range(8)}
    assert len(orders) > 4
    assert all(len(order) == len(TEXTS) for order in orders)


def test_captions_that_the_model_can_not_read_are_left_out(captions_file, tmp_path):
    captions = shuffled(read_captions(captions_file), 0)
    captions[1] = type(captions[1])(captions[1].image, captions[1].identity, "a cat " * 40)
    made = make(captions, FakeBackend(), tmp_path / "set", 3)
    assert made.there == 3
    assert len(made.left_out) == 1
    assert "80 tokens" in made.left_out[0]
    with pytest.raises(ValueError, match="for 3 images, not for 4; 1 were left out"):
        make(captions, FakeBackend(), tmp_path / "set", 4)
    with pytest.raises(ValueError, match="captions for 4 images, not 5"):
        make(captions, FakeBackend(), tmp_path / "new", 5)


def test_unreal_captions_have_other_nouns_and_adjectives_in_the_same_places(
    captions_file, tags_file
):
    captions = shuffled(read_captions(captions_file), 0)
    made = unreal_captions(captions, read_conllu(tags_file), 0)
    changed = 0
    for before, after in zip(captions, made, strict=True):
        words = re.findall(r"\w+|\.", before.text), re.findall(r"\w+|\.", after.text)
        for old, new in zip(*words, strict=True):
            assert TAGS.get(old) == TAGS.get(new)
            if old not in TAGS:
                assert old == new
            changed += old != new
    assert changed > 5
    # The same whatever else is made, and another by another seed.
    alone = unreal_captions(captions[2:3] + captions[:2] + captions[3:], read_conllu(tags_file), 0)
    assert alone[0] == made[2]
    assert unreal_captions(captions, read_conllu(tags_file), 1) != made


def test_a_word_is_replaced_where_it_stands_and_not_inside_others(tmp_path):
    text = "cats like a cat"
    rows = [("cats", "X"), ("like", "X"), ("a", "X"), ("cat", "NOUN")]
    path = tmp_path / "one.conllu"
    path.write_text(
        f"# text = {text}\n"
        + "".join(f"{i}\t{w}\t_\t{t}\t_\t_\t0\t_\t_\t_\n" for i, (w, t) in enumerate(rows, 1))
        + "\n# text = a dog\n1\ta\t_\tX\t_\t_\t0\t_\t_\t_\n2\tdog\t_\tNOUN\t_\t_\t0\t_\t_\t_\n"
    )
    captions = [Caption(1, 1, text), Caption(2, 2, "a dog")]
    results = {unreal_captions(captions, read_conllu(path), seed)[0].text for seed in range(12)}
    assert results == {"cats like a cat", "cats like a dog"}


def test_of_words_that_are_written_as_one_each_is_replaced_by_itself(tmp_path):
    """A possessive keeps its ending, and words that can't be told apart are replaced once."""
    path = tmp_path / "two.conllu"
    path.write_text(
        "# text = the man's hat\n"
        "1\tthe\t_\tDET\t_\t_\t0\t_\t_\t_\n"
        "2-3\tman's\t_\t_\t_\t_\t_\t_\t_\t_\n"
        "2\tman\t_\tNOUN\t_\t_\t0\t_\t_\t_\n"
        "3\t's\t_\tPART\t_\t_\t0\t_\t_\t_\n"
        "4\that\t_\tNOUN\t_\t_\t0\t_\t_\t_\n"
        "\n# text = ziehts am\n"
        "1-2\tziehts\t_\t_\t_\t_\t_\t_\t_\t_\n"
        "1\tman\t_\tNOUN\t_\t_\t0\t_\t_\t_\n"
        "2\that\t_\tNOUN\t_\t_\t0\t_\t_\t_\n"
        "3\tam\t_\tX\t_\t_\t0\t_\t_\t_\n"
    )
    captions = [Caption(1, 1, "the man's hat"), Caption(2, 2, "ziehts am")]
    made = [unreal_captions(captions, read_conllu(path), seed) for seed in range(16)]
    nouns = ("man", "hat")
    assert {one.text for one, _ in made} == {f"the {a}'s {b}" for a in nouns for b in nouns}
    assert {one.text for _, one in made} == {f"{a} am" for a in nouns}


def test_two_can_not_make_the_same_set_at_once(captions_file, tmp_path):
    captions = shuffled(read_captions(captions_file), 0)
    (tmp_path / "set").mkdir()
    with locked(tmp_path / "set"), pytest.raises(RunInUseError, match="is in use by process"):
        make(captions, FakeBackend(), tmp_path / "set", 1)


def test_untagged_captions_are_named(captions_file, tags_file):
    captions = shuffled(read_captions(captions_file), 0)
    tagged = list(read_conllu(tags_file))
    with pytest.raises(TaggingError, match="1 of 4 captions have no parts of speech, the first"):
        unreal_captions(captions, [t for t in tagged if t.text != captions[0].text], 0)


def test_conllu_words_that_are_written_as_one(tmp_path):
    path = tmp_path / "one.conllu"
    path.write_text(
        "# sent_id = 1\n# text = Dogs don't bark.\n"
        "1\tDogs\tdog\tNOUN\t_\t_\t4\tnsubj\t_\t_\n"
        "2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_\n"
        "2\tdo\tdo\tAUX\t_\t_\t4\taux\t_\t_\n"
        "3\tn't\tnot\tPART\t_\t_\t4\tadvmod\t_\t_\n"
        "4\tbark\tbark\tVERB\t_\t_\t0\troot\t_\t_\n"
        "4.1\tghost\t_\t_\t_\t_\t_\t_\t_\t_\n"
        "5\t.\t.\tPUNCT\t_\t_\t4\tpunct\t_\t_\n"
    )
    (sentence,) = read_conllu(path)
    places = [(t.text, sentence.text[t.start : t.stop], t.tag, t.head) for t in sentence.tokens]
    assert places == [
        ("Dogs", "Dogs", "NOUN", 3),
        ("do", "don't", "AUX", 3),
        ("n't", "don't", "PART", 3),
        ("bark", "bark", "VERB", None),
        (".", ".", "PUNCT", 3),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# text = a\n1\ta\tX\n", "line 2: 3 fields, and CoNLL-U has 10"),
        ("1\ta\t_\tX\t_\t_\t0\t_\t_\t_\n", "line 1 has no '# text"),
        ("# text = b\n1\ta\t_\tX\t_\t_\t0\t_\t_\t_\n", "line 2: 'a' isn't in 'b'"),
        ("# text = a\n1-x\ta\t_\tX\t_\t_\t0\t_\t_\t_\n", "'1-x' is no range"),
    ],
)
def test_malformed_conllu(tmp_path, text, says):
    (tmp_path / "bad.conllu").write_text(text)
    with pytest.raises(TaggingError, match=says):
        list(read_conllu(tmp_path / "bad.conllu"))


def token(i, text, idx, pos, head, dep, space=False):
    return types.SimpleNamespace(
        i=i, text=text, idx=idx, pos_=pos, head=types.SimpleNamespace(i=head), dep_=dep,
        is_space=space,
    )  # fmt: skip


class Doc(list):
    text = "a  red dog"


def test_spacy_documents_are_read():
    doc = Doc(
        [
            token(0, "a", 0, "DET", 3, "det"),
            token(1, " ", 2, "SPACE", 0, "", space=True),
            token(2, "red", 3, "ADJ", 3, "amod"),
            token(3, "dog", 7, "NOUN", 3, "ROOT"),
        ]
    )
    found = text_of_doc(doc)
    assert [(t.text, found.text[t.start : t.stop], t.tag, t.head) for t in found.tokens] == [
        ("a", "a", "DET", 2),
        ("red", "red", "ADJ", 2),
        ("dog", "dog", "NOUN", None),
    ]
    doc[3].pos_ = ""
    with pytest.raises(TaggingError, match="gave 'dog' no part of speech"):
        text_of_doc(doc)


def test_without_spacy_the_other_way_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "spacy", None)
    with pytest.raises(TaggingError, match=r"spaCy isn.t installed: .* CoNLL-U"):
        list(tag_by_spacy(["a dog"], "en_core_web_sm"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"annotations": [', "is no JSON, or was cut short"),
        ('{"images": []}', "no list of annotations"),
        ('{"annotations": [{"id": 1, "image_id": "../x", "caption": "a"}]}', "no caption"),
    ],
)
def test_malformed_captions(tmp_path, text, says):
    (tmp_path / "captions.json").write_text(text)
    with pytest.raises(DatasetError, match=says):
        read_captions(tmp_path / "captions.json")


def test_the_command_makes_and_checks_a_set_with_the_embedded_model(
    captions_file, tags_file, tmp_path, capsys
):
    out = tmp_path / "unreal"
    command = ["data", "make", "unreal-gen", "--captions", str(captions_file), "--quiet", "-n"]
    common = ["--tags", str(tags_file), "-o", str(out)]
    assert main([*command, "1", *common]) == 0
    assert capsys.readouterr().out == f"1 image in {out}, 1 of them drawn now\n"
    assert main([*command, "1", *common, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"images": 1, "drawn": 0, "left_out": 0}
    (folder,) = (path for path in out.iterdir() if path.is_dir())
    with Image.open(folder / "output.png") as image:
        assert image.size == (64, 64)
    assert main(["data", "check", f"coco-gen:{out},unannotated=yes", "--quiet"]) == 0
    assert "1 item, 1 of them without masks" in capsys.readouterr().out
    shutil.copytree(folder, out / "7")
    (out / "7/prompt.txt").unlink()
    check = ["data", "check", f"coco-gen:{out},unannotated=yes", "--quiet"]
    assert main(check) == 2
    assert "has no prompt.txt" in capsys.readouterr().err
    assert main([*check, "--skip-malformed", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["skipped"] == 1
    assert "has no prompt.txt" in said.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["unreal-gen"], "say which words are, as --tags FILE"),
        (["coco-gen", "--tags", "x.conllu"], "--tags and --spacy are unreal-gen's"),
    ],
)
def test_parts_of_speech_are_unreal_gens(captions_file, tmp_path, capsys, arguments, says):
    command = ["data", "make", *arguments, "--captions", str(captions_file)]
    assert main([*command, "-o", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
