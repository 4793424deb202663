"""``wordlight reproduce daam``: the paper's tables, from captions to a page."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.backends.torch import segmenters as tiny
from wordlight.attribution.maps import AttributionMaps
from wordlight.comparisons.cli.main import main
from wordlight.comparisons.datasets.making import read_captions
from wordlight.comparisons.studies.influence import PAPER_SPREAD

CAPTIONS = ("a red circle and a dog.", "a dog and a blue square.", "a cat.")
TAGS = {"red": "ADJ", "blue": "ADJ", "and": "CCONJ", ".": "PUNCT", "a": "DET"}
RELATIONS = {"DET": "det", "ADJ": "amod", "CCONJ": "cc", "PUNCT": "punct", "NOUN": "conj"}


def conllu(text):
    """A sentence whose words all depend on its first noun."""
    words = text.replace(".", " .").split()
    tags = [TAGS.get(word, "NOUN") for word in words]
    root = tags.index("NOUN")
    lines = [f"# text = {text}"]
    for place, (word, tag) in enumerate(zip(words, tags, strict=True)):
        head, relation = (0, "root") if place == root else (root + 1, RELATIONS[tag])
        lines.append(f"{place + 1}\t{word}\t_\t{tag}\t_\t_\t{head}\t{relation}\t_\t_")
    return "\n".join(lines) + "\n\n"


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Captions, their tags, and segmenters of random weights."""
    root = tmp_path_factory.mktemp("given")
    (root / "captions.txt").write_text("".join(f"{text}\n\n" for text in CAPTIONS))
    rows = [{"id": k, "image_id": k, "caption": text} for k, text in enumerate(CAPTIONS)]
    (root / "captions.json").write_text(json.dumps({"annotations": rows}))
    (root / "tags.conllu").write_text("".join(map(conllu, CAPTIONS)))
    tiny.clipseg(root / "clipseg")
    tiny.mask2former(root / "mask2former")
    # Half of 64 pixels is too little for its deepest layer's norm.
    size = {"shortest_edge": 64, "longest_edge": 64}
    tiny.Mask2FormerImageProcessorPil(size=size).save_pretrained(root / "mask2former")
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def typed(given, out, captions="captions.txt", *more):
    return [
        *("reproduce", "daam", "--captions", str(given / captions), "-n", "3"),
        *("--tags", str(given / "tags.conllu"), "--masks", f"clipseg:{given / 'clipseg'}"),
        *("--segmenter", f"tiny=mask2former:{given / 'mask2former'}"),
        *("--segmenter", f"gone=mask2former:{given / 'nowhere'}"),
        *("--sampling-steps", "2", "-o", str(out), "--json", "--quiet", *more),
    ]


def test_from_captions_to_the_page(given, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(typed(given, out)) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((out / "daam.json").read_text())
    segmentation = {(one["row"], one["metric"]): one for one in found["segmentation"]}
    # Whole images have no threshold to vary, and masks neither.
    assert [key[1] for key in segmentation if key[0].startswith("daam")] == [
        *("miou@0.3", "miou@0.4", "miou@0.5"),
    ]
    assert sum(key[0] == "tiny" for key in segmentation) == 1
    every = segmentation["uniform", "miou@0.4"]
    # Dogs and cats are of COCO's classes, circles and squares aren't.
    assert 0 < every["closed"]["n"] < every["open"]["n"] <= 5
    spread = found["parts_of_speech"]
    assert set(spread) == {"NOUN", "ADJ", "CCONJ", "DET", "PUNCT"}
    assert spread["NOUN"]["n"] == 5
    # Of the method's maps, and not of the whole image's.
    assert spread["NOUN"]["mean"] < 1
    assert spread["NOUN"]["paper"] == PAPER_SPREAD["NOUN"]
    relations = {one["relation"]: one for one in found["relations"]}
    assert relations["amod"]["miod"]["n"] == 2
    assert relations["(all relations)"]["paper"] == [0.623, 0.620]
    page = (out / "daam.html").read_text()
    for shown in ("gone: not measured", "0.588 to 0.648", "whole image", "Heads and dependents"):
        assert shown in page
    assert "<script" not in page
    assert (out / "daam.md").read_text().count("\n## ") == 4
    # Once more: nothing is drawn or computed, and the same is found.
    cells = {path: path.stat().st_mtime_ns for path in (out / "run").rglob("*.parquet")}
    assert main(typed(given, out)) == 0
    assert json.loads(capsys.readouterr().out) == found
    kept = {path for path in cells if "cells" in path.parts}
    assert kept
    assert all(path.stat().st_mtime_ns == cells[path] for path in kept)
    with_other_seed = typed(given, out, "captions.txt", "--seed", "1")
    assert main(with_other_seed) == 2
    assert "holds a reproduction of other captions" in capsys.readouterr().err


def test_lists_and_captions_of_coco_are_read_alike(given):
    lists, coco = (read_captions(given / f"captions.{kind}") for kind in ("txt", "json"))
    assert [one.text for one in lists] == [one.text for one in coco] == list(CAPTIONS)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("-n", "4"), "captions for 3 images, not for 4: take -n 3"),
        (("--spacy", "en_core_web_sm"), "not from both"),
        (("--framework", "torch", "--framework", "flax"), "name one"),
    ],
)
def test_bad_input_is_said_before_a_model_is_loaded(given, tmp_path, capsys, more, says):
    assert main(typed(given, tmp_path / "out", "captions.txt", *more)) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_captions_without_tags_say_what_is_missing(given, tmp_path, capsys):
    (given / "other.conllu").write_text(conllu("a dog."))
    arguments = typed(given, tmp_path / "out")
    arguments[arguments.index("--tags") + 1] = str(given / "other.conllu")
    assert main(arguments) == 2
    assert "has no parts of speech of" in capsys.readouterr().err


def test_masks_that_people_made(given, tmp_path, capsys):
    """The images are drawn first, and again for their maps."""
    folder, out = tmp_path / "set", tmp_path / "out"
    made = ("data", "make", "coco-gen", "--captions", str(given / "captions.txt"), "-n", "2")
    how = ("--sampling-steps", "2", "--quiet", "--json")
    assert main([*made, "-o", str(folder), *how]) == 0
    capsys.readouterr()
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:32, :, 3] = 255
    for place in folder.glob("[0-9]*"):
        for word in {"circle", "square", "dog", "cat"} & set(
            place.joinpath("prompt.txt").read_text().replace(".", "").split()
        ):
            Image.fromarray(pixels).save(place / f"{word}.gt.png")
            if word in ("circle", "square"):
                continue
            # Another object, so that there are two of them.
            Image.fromarray(pixels[::-1]).save(place / f"{word}.gt.png")
    arguments = [*("reproduce", "daam", "--captions", str(folder), "-n", "2"), *how]
    arguments += ["--tags", str(given / "tags.conllu"), "-o", str(out)]
    arguments += ["--segmenter", f"gone=mask2former:{given / 'nowhere'}", "--method", "daam"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["masks"] == "made by people"
    # The tables of words are of all steps, as the paper's, though the method's own row is of one.
    assert found["maps_of"] == "daam (all steps)"
    kept = sorted((out / "run" / "maps").rglob("daam-all-steps.safetensors"))
    shares = [
        maps[noun].mask(0.4).mean()
        for maps in map(AttributionMaps.load, kept)
        for noun in ("circle", "square", "dog", "cat")
        if noun in maps
    ]
    assert found["parts_of_speech"]["NOUN"]["mean"] == pytest.approx(np.mean(shares), abs=1e-6)
    whole = next(one for one in found["segmentation"] if one["row"] == "uniform")
    assert whole["open"]["mean"] == whole["closed"]["mean"] == 0.5
    assert found["parts_of_speech"]["NOUN"]["n"] == whole["open"]["n"]
