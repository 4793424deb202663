"""Each format, on a tiny data set that the test builds as the real ones are laid out."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.comparisons import dataset_files as files
from tests.comparisons.dataset_files import CAT, DOG, SKY, picture
from wordlight.backends.prompted_data import THINGS
from wordlight.backends.scenes.render import rendered
from wordlight.comparisons.datasets import DatasetError, open_dataset


def texts(item, place):
    places = place if isinstance(place, list) else [place]
    return [item.prompt[one] for one in places]


def masks_of(item):
    return {"/".join(texts(item, one.place)): one.mask for one in item.annotations}


def check_masks(item, **expected):
    found = masks_of(item)
    assert set(found) == {key.replace("_", "/") for key in expected}
    for key, mask in expected.items():
        np.testing.assert_array_equal(found[key.replace("_", "/")], mask)


def test_coco_gen_has_its_masks_in_the_alpha_channel(tmp_path):
    dataset = open_dataset(f"coco-gen:{files.coco_gen(tmp_path)}")
    first, second = dataset
    assert (first.sample, second.sample) == ("100", "101")
    assert first.prompt == "A dog sees dog number 0 and a Cat."
    assert (first.seed, second.seed) == (7, 8)
    np.testing.assert_array_equal(first.image, picture(0))
    # The mask is of all that a word names, wherever the prompt has it.
    check_masks(first, dog_dog=DOG, Cat=CAT)


def test_coco_gen_may_be_narrowed_to_cocos_classes(tmp_path):
    root = files.coco_gen(tmp_path, 1)
    (root / "100/prompt.txt").write_text("a dog, two cats and a dragon")
    (root / "100/cat.gt.png").rename(root / "100/cats.gt.png")
    files.save_alpha(root / "100/dragon.gt.png", SKY)
    (item,) = open_dataset(root)
    check_masks(item, dog=DOG, cats=CAT, dragon=SKY)
    (item,) = open_dataset(f"{root},words=coco80")
    check_masks(item, dog=DOG, cats=CAT)


def test_coco_gen_lists_what_nobody_annotated_only_when_asked(tmp_path):
    root = files.coco_gen(tmp_path, 2)
    for path in (root / "101").glob("*.gt.png"):
        path.unlink()
    assert [item.sample for item in open_dataset(root)] == ["100"]
    _, bare = open_dataset(f"coco-gen:{root},unannotated=yes")
    assert bare.annotations is None


def test_a_plain_folder_is_read_from_json_lines(tmp_path):
    first, *others = open_dataset(files.plain_folder(tmp_path))
    assert (first.sample, first.prompt, len(others)) == ("0", "a dog under the sky 0", 2)
    check_masks(first, dog=DOG, sky=SKY)
    assert {one.category for one in first.annotations} == {"object", "stuff"}


def test_a_plain_folder_tells_places_apart(tmp_path):
    root = files.plain_folder(tmp_path, 1)
    masks = [
        {"word": "cross", "occurrence": 1, "mask": "masks/0-dog.png"},
        {"word": "red  Cross", "mask": "masks/0-sky.png"},
    ]
    line = {"image": "images/0.png", "prompt": "a red cross, a blue cross", "masks": masks}
    (root / "items.jsonl").write_text(json.dumps(line))
    (item,) = open_dataset(root)
    second, first = (one.place for one in item.annotations)
    assert (second, first) == (slice(20, 25), slice(2, 11))


def test_fields_that_say_nothing_are_as_if_they_were_not_there(tmp_path):
    root = files.plain_folder(tmp_path, 1)
    line = json.loads((root / "items.jsonl").read_text())
    nothing = dict.fromkeys(("id", "seed", "split"))
    (root / "items.jsonl").write_text(json.dumps({**line, **nothing}))
    (item,) = open_dataset(root)
    assert (item.sample, item.seed) == ("0", None)


@pytest.mark.parametrize("white_is", [0, 1])
def test_a_mask_with_a_palette_is_where_its_colour_is_not_black(tmp_path, white_is):
    root = files.plain_folder(tmp_path, 1)
    numbers = np.where(DOG, white_is, 1 - white_is).astype(np.uint8)
    image = Image.fromarray(numbers, "L").convert("P")
    image.putdata(numbers.ravel().tolist())
    image.putpalette([255, 255, 255, 0, 0, 0] if white_is == 0 else [0, 0, 0, 255, 255, 255])
    image.save(root / "masks/0-dog.png")
    (item,) = open_dataset(root)
    check_masks(item, dog=DOG, sky=SKY)


@pytest.mark.parametrize("masks_type", ["map", "structs"])
def test_a_plain_folder_is_read_from_parquet(tmp_path, masks_type):
    root = files.plain_folder(tmp_path)
    rows = [json.loads(line) for line in (root / "items.jsonl").read_text().splitlines()]
    (root / "items.jsonl").unlink()
    if masks_type == "map":
        kind = pa.map_(pa.string(), pa.string())
        rows = [{**row, "masks": list(row["masks"].items())} for row in rows]
    else:
        kind = pa.list_(pa.struct([("word", pa.string()), ("mask", pa.string())]))
        rows = [
            {**row, "masks": [{"word": w, "mask": m} for w, m in row["masks"].items()]}
            for row in rows
        ]
    schema = pa.schema(
        [
            ("image", pa.string()),
            ("prompt", pa.string()),
            ("masks", kind),
            ("stuff", pa.list_(pa.string())),
            ("seed", pa.int64()),
        ]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), root / "items.parquet")
    items = list(open_dataset(root))
    assert len(items) == 3
    check_masks(items[2], dog=DOG, sky=SKY)


def test_a_plain_folder_may_have_prompts_alone(tmp_path):
    (tmp_path / "items.jsonl").write_text('{"id": "one", "prompt": "a dog", "seed": 3}\n')
    (item,) = open_dataset(tmp_path)
    assert (item.image, item.annotations, item.seed) == (None, None, 3)


def test_voc_leaves_void_out_of_every_mask(tmp_path):
    (item,) = open_dataset(files.voc(tmp_path))
    assert item.sample == "2007_000002"
    assert item.prompt == "a photo of a cat and a dog"
    check_masks(item, dog=DOG, cat=CAT)


def test_voc_has_lists_templates_and_other_classes(tmp_path):
    root = files.voc(tmp_path / "set")
    classes = tmp_path / "classes.txt"
    classes.write_text("\n".join(f"animal {letter}" for letter in "abcdefghijkl"))
    spec = f"voc:{root},subset=train,prompt=here: {{}}!,classes={classes}"
    items = list(open_dataset(spec))
    assert [item.sample for item in items] == ["2007_000001", "2007_000002"]
    assert items[0].prompt == "here: an animal h and an animal l!"
    check_masks(items[0], **{"animal l": DOG, "animal h": CAT})


def test_imagenet_segmentation_turns_its_axes_back(tmp_path):
    path = files.imagenet_segmentation(tmp_path / "gtsegs_ijcv.mat")
    names = path.with_name("names.txt")
    first, second = open_dataset(f"{path},names={names}")
    assert first.prompt == "a photo of a dog"
    assert second.prompt == "a photo of a domestic cat"
    np.testing.assert_array_equal(second.image, picture(1))
    check_masks(first, dog=DOG)


def test_coco_instances_unite_a_classes_objects(tmp_path):
    (item,) = open_dataset(files.coco(tmp_path))
    # The caption that names most classes, and of those the first; its line break is a blank.
    assert item.prompt == "A puppy and two cats below the sky."
    cats = files.box(8, 18, 20, 22) | files.box(8, 24, 20, 30)
    check_masks(item, puppy=DOG, cats=cats)
    assert {one.category for one in item.annotations} == {"object"}


def test_coco_stuff_and_panoptic(tmp_path):
    root = files.coco(tmp_path)
    (item,) = open_dataset(f"coco:{root},kind=stuff,subset=val2017")
    check_masks(item, sky=SKY)
    (item,) = open_dataset(f"coco:{root},kind=panoptic")
    cats = files.box(8, 18, 20, 22) | files.box(8, 24, 20, 30)
    check_masks(item, puppy=DOG, cats=cats, sky=SKY)
    by_mask = {int(one.mask.sum()): one.category for one in item.annotations}
    assert by_mask[int(SKY.sum())] == "stuff"
    assert by_mask[int(DOG.sum())] == "object"


def test_rendered_scenes_have_the_renderers_own_masks():
    dataset = open_dataset("rendered-scenes,test=unseen-pairs")
    item = dataset.read("rendered-unseen-pairs-0002")
    drawn = rendered("unseen-pairs", 2)
    np.testing.assert_array_equal(item.image, drawn.image)
    by_start = {word.start: mask for word, mask in zip(
        drawn.scene.words, (drawn.word_masks().get(i) for i in range(99)), strict=False
    )}  # fmt: skip
    assert item.annotations
    for one in item.annotations:
        np.testing.assert_array_equal(one.mask, by_start[one.place.start])
    assert {one.split for one in dataset.listing} == {"calibration", "test"}


def test_rendered_things_have_nouns_as_objects():
    """``a large hot dog, a tie and a panda in front of a brick wall.``"""
    item = open_dataset("rendered-things").read("rendered-test-0002")
    drawn = THINGS.rendered("test", 2)
    np.testing.assert_array_equal(item.image, drawn.image)
    masks = {drawn.scene.words[i].start: mask for i, mask in drawn.word_masks().items()}
    for one in item.annotations:
        np.testing.assert_array_equal(one.mask, masks[one.place.start])
    assert [(item.prompt[one.place], one.category) for one in item.annotations] == [
        ("large", "size"),
        ("hot dog", "object"),
        ("tie", "object"),
        ("panda", "object"),
        ("brick", "ground"),
        ("wall", "ground"),
    ]


def test_items_are_read_when_they_are_asked_for(tmp_path, monkeypatch):
    from wordlight.comparisons.datasets import folder

    read = []
    original = folder.read_image
    monkeypatch.setattr(folder, "read_image", lambda path: read.append(path) or original(path))
    items = iter(open_dataset(files.plain_folder(tmp_path)))
    assert not read
    next(items)
    assert len(read) == 1


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("nowhere", "there is no data set at nowhere"),
        ("cocogen:x", "no data set format 'cocogen'; did you mean coco-gen"),
        ("voc:{},list=val", "has no option 'list'; it has: subset, prompt, classes"),
        ("voc:{},subset=val,subset=train", "gives subset twice"),
        ("voc:{},prompt=a photo", "has {} once"),
        ("voc:", "say where"),
        ("coco-gen:{},words=80", "'all' or 'coco80'"),
        ("coco-gen:{},unannotated=1", "is yes or no"),
        ("rendered-scenes,test=tests", "must be one of train"),
        ("{}", "no layout that is known"),
        ("coco-gen:{}", "holds no item of a coco-gen data set"),
        ("folder:{}", "no items.jsonl and no .parquet"),
        ("voc:{}", "no folder JPEGImages"),
        ("coco:{}", "say which subset"),
        ("imagenet-segmentation:{}", "give a file with their names"),
    ],
)
def test_what_is_no_data_set_is_said_in_one_line(tmp_path, spec, says):
    with pytest.raises(DatasetError) as caught:
        len(open_dataset(spec.replace("{}", str(tmp_path))))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
