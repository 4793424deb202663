"""What a data set may have wrong with it: said in one error, or skipped and counted."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import replace

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from tests.comparisons import dataset_files as files
from tests.comparisons.dataset_files import DOG, picture, save, save_alpha
from wordlight.comparisons.datasets import DatasetError, DatasetWarning, coco, open_dataset
from wordlight.comparisons.datasets.files import inside, read_image
from wordlight.comparisons.datasets.folder import PlainFolder


def edit(root, number, **changes):
    """Change fields of a line of a plain folder."""
    path = root / "items.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[number].update(changes)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def cut_line(root):
    lines = (root / "items.jsonl").read_text().splitlines()
    lines[1] = lines[1][: len(lines[1]) // 2]
    (root / "items.jsonl").write_text("\n".join(lines) + "\n")


def wrong_size(root):
    save(root / "masks/1-dog.png", np.ones((10, 12), np.uint8) * 255)


def no_image(root):
    (root / "images/1.png").write_bytes(b"GIF89a, or so it says")


def cut_image(root):
    data = (root / "images/1.png").read_bytes()
    (root / "images/1.png").write_bytes(data[: len(data) // 2])


def missing_image(root):
    (root / "images/1.png").unlink()


def missing_mask(root):
    (root / "masks/1-dog.png").unlink()


def null_mask(root):
    edit(root, 1, masks={"dog": None})


def empty_mask(root):
    save(root / "masks/1-dog.png", np.zeros((files.HEIGHT, files.WIDTH), np.uint8))


def no_masks(root):
    edit(root, 1, masks={})


def other_word(root):
    edit(root, 1, masks={"horse": "masks/1-dog.png"})


def no_such_place(root):
    edit(root, 1, masks=[{"word": "dog", "occurrence": 1, "mask": "masks/1-dog.png"}])


def absolute(root):
    edit(root, 1, image=str(root / "images/1.png"))


def upwards(root):
    shutil.copy(root / "images/1.png", root.parent / "secret.png")
    edit(root, 1, image="images/../../secret.png")


def mask_upwards(root):
    shutil.copy(root / "masks/1-dog.png", root.parent / "secret.png")
    edit(root, 1, masks={"dog": "../secret.png"})


def link_out(root):
    outside = root.parent / "outside.png"
    shutil.copy(root / "images/1.png", outside)
    (root / "images/1.png").unlink()
    (root / "images/1.png").symlink_to(outside)


def folder_link_out(root):
    shutil.move(root / "masks", root.parent / "elsewhere")
    (root / "masks").mkdir()
    for path in (root.parent / "elsewhere").iterdir():
        if not path.name.startswith("1-"):
            shutil.copy(path, root / "masks")
    (root / "masks/1-dog.png").symlink_to(root.parent / "elsewhere/1-dog.png")


def twice(root):
    edit(root, 1, id="2")


def bad_name(root):
    edit(root, 1, id="../2")


def no_prompt(root):
    edit(root, 1, prompt=" ")


def half_a_character(root):
    edit(root, 1, prompt="a dog under the sky \ud83d")


def half_a_path(root):
    edit(root, 1, masks={"dog": "masks/\ud83d.png"})


def odd_field(root):
    edit(root, 1, promt="a dog")


def odd_seed(root):
    edit(root, 1, seed=-1)


def odd_masks(root):
    edit(root, 1, masks="masks/1-dog.png")


def a_list(root):
    lines = (root / "items.jsonl").read_text().splitlines()
    (root / "items.jsonl").write_text("\n".join([lines[0], "[1, 2]", lines[2]]))


def deep_image(root):
    save(root / "images/1.png", np.full((files.HEIGHT, files.WIDTH), 30000, np.uint16))


def odd_stuff(root):
    edit(root, 1, stuff="sky")


def other_stuff(root):
    edit(root, 1, stuff=["Sky"])


def two_masks(root):
    mask = {"word": "dog", "mask": "masks/1-dog.png"}
    edit(root, 1, masks=[mask, {**mask, "mask": "masks/2-dog.png"}], stuff=[])


def key_twice(root):
    path = root / "items.jsonl"
    path.write_text(
        path.read_text().replace('"masks/1-dog.png",', '"masks/1-dog.png", "dog": "x",')
    )


def bad_parquet(root):
    (root / "more.parquet").write_bytes(b"PAR1 and then nothing")


def odd_bytes(root):
    """A text that is none, which a Parquet file can hold."""
    prompts = pa.array([b"a dog", b"\xff\xfe", b"a cat"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"id": ["x", "y", "z"], "prompt": prompts}), root / "more.parquet")


def date_beyond_python(root):
    times = pa.array([2**40], pa.timestamp("s"))
    pq.write_table(pa.table({"prompt": ["a dog"], "id": times}), root / "more.parquet")


def folder_of_that_name(root):
    (root / "more.jsonl").mkdir()


SPOILED = [
    (cut_line, "line 2 is no JSON, or was cut short"),
    (wrong_size, "the mask of 'dog' is 10x12, and the image is 24x32"),
    (no_image, "images/1.png is no image that can be read"),
    (cut_image, "images/1.png is no image that can be read"),
    (missing_image, "there is no .*images/1.png"),
    (missing_mask, "the word 'dog' has no mask: there is no .*1-dog.png"),
    (null_mask, "the word 'dog' has no mask"),
    (empty_mask, "the mask of 'dog' is empty"),
    (no_masks, "masks names no word"),
    (other_word, "a mask of 'horse', which the prompt 'a dog under the sky 1' doesn't have"),
    (no_such_place, "occurrence 1 from 0, which the prompt .* has 1 time"),
    (absolute, "leads out of .*: paths must lie inside"),
    (upwards, "leads out of .*: paths must lie inside"),
    (mask_upwards, "leads out of .*: paths must lie inside"),
    (link_out, "leads out of .* by a symbolic link"),
    (folder_link_out, "leads out of .* by a symbolic link"),
    (twice, "two items are called '2'"),
    (bad_name, "can't name an item"),
    (no_prompt, "line 2: an item needs a prompt"),
    (half_a_character, "line 2: prompt and image should be texts: 'a dog under the sky"),
    (half_a_path, "masks/.* is no path"),
    (odd_field, "unknown 'promt'"),
    (odd_seed, "the seed should be a whole number, not -1"),
    (odd_masks, "masks should be an object"),
    (deep_image, "images/1.png should have 8 bits a channel: it is I;16"),
    (odd_stuff, "stuff should be a list of words, not 'sky'"),
    (other_stuff, "stuff names 'Sky', and the words with a mask are 'dog', 'sky'"),
    (two_masks, "'dog' has two masks: unite them in one"),
    (key_twice, "line 2 is no JSON, or was cut short: it has 'dog' twice"),
    (a_list, "line 2: an item is a JSON object, not list"),
    (bad_parquet, "more.parquet is no Parquet that can be read"),
    (odd_bytes, "more.parquet, row 2: a text is not in UTF-8"),
    (date_beyond_python, "more.parquet, row 1 can't be read: date value out of range"),
    (folder_of_that_name, "more.jsonl can't be read: Is a directory"),
]


@pytest.mark.parametrize(("spoil", "says"), SPOILED)
def test_a_malformed_item_is_named_or_skipped_and_counted(tmp_path, spoil, says):
    root = files.plain_folder(tmp_path / "set")
    spoil(root)
    with pytest.raises(DatasetError, match=says) as caught:
        list(open_dataset(root))
    assert "\n" not in str(caught.value)
    skipping = open_dataset(root, on_error="skip")
    with pytest.warns(DatasetWarning, match=f"1 of .* skipped: .*{says}") as warned:
        items = list(skipping)
    assert len(warned) == 1
    assert len(items) == {
        bad_parquet: 3,
        folder_of_that_name: 3,
        odd_bytes: 5,
        date_beyond_python: 3,
    }.get(spoil, 2)
    assert len(skipping.skipped) == 1
    # What was said once isn't said again.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        skipping.report_skipped()


def test_a_format_lists_whether_an_item_has_an_image(tmp_path):
    class Forgetful(PlainFolder):
        def _list(self):
            return [replace(one, given=True) for one in super()._list()]

    (tmp_path / "items.jsonl").write_text('{"id": "0", "prompt": "a dog"}\n')
    with pytest.raises(DatasetError, match="0 is listed with an image, and has none"):
        list(Forgetful(tmp_path))


def test_a_data_set_of_nothing_good_says_why(tmp_path):
    (tmp_path / "items.jsonl").write_text('{"prompt": "a d')
    with pytest.raises(DatasetError, match=r"holds no item.*line 1 is no JSON"):
        list(open_dataset(tmp_path, on_error="skip"))


def gen_no_prompt(root):
    (root / "100/prompt.txt").unlink()


def gen_no_alpha(root):
    save(root / "100/dog.gt.png", DOG.astype(np.uint8) * 255)


def gen_wrong_size(root):
    save_alpha(root / "100/dog.gt.png", DOG[:-1])


def gen_no_image(root):
    (root / "100/output.png").write_bytes(b"")


def gen_bad_seed(root):
    (root / "100/seed.txt").write_text("seven")


def gen_other_word(root):
    (root / "100/dog.gt.png").rename(root / "100/horse.gt.png")


def gen_part_of_a_word(root):
    (root / "100/dog.gt.png").rename(root / "100/do.gt.png")


def gen_folder_link(root):
    shutil.move(root / "100", root.parent / "100")
    (root / "100").symlink_to(root.parent / "100", target_is_directory=True)


def gen_mask_link(root):
    shutil.move(root / "100/dog.gt.png", root.parent / "dog.gt.png")
    (root / "100/dog.gt.png").symlink_to(root.parent / "dog.gt.png")


def gen_binary_prompt(root):
    (root / "100/prompt.txt").write_bytes(b"a dog \xff\xfe and a cat")


def gen_endless_prompt(root):
    (root / "100/prompt.txt").write_text("a dog and a cat " * 10_000)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (gen_no_prompt, "100 has no prompt.txt"),
        (gen_no_alpha, "dog.gt.png has no alpha channel"),
        (gen_wrong_size, "the mask of 'dog' and 'dog' is 23x32, and the image is 24x32"),
        (gen_no_image, "output.png is no image that can be read"),
        (gen_bad_seed, "seed.txt should hold a seed, a whole number, not 'seven'"),
        (gen_other_word, "horse.gt.png is the mask of 'horse', which .* doesn't have"),
        (gen_part_of_a_word, "do.gt.png is the mask of 'do', which .* doesn't have"),
        (gen_folder_link, "'100' leads out of .* by a symbolic link"),
        (gen_mask_link, "dog.gt.png' leads out of .* by a symbolic link"),
        (gen_binary_prompt, "prompt.txt is no text in UTF-8"),
        (gen_endless_prompt, "prompt.txt has more than 100000 bytes"),
    ],
)
def test_a_malformed_folder_of_coco_gen(tmp_path, spoil, says):
    root = files.coco_gen(tmp_path / "set")
    spoil(root)
    with pytest.raises(DatasetError, match=says):
        list(open_dataset(f"coco-gen:{root}"))
    with pytest.warns(DatasetWarning, match=says):
        (other,) = open_dataset(f"coco-gen:{root}", on_error="skip")
    assert other.sample == "101"


def voc_labels(root, labels, mode="L"):
    Image.fromarray(labels, mode).save(root / "SegmentationClass/2007_000002.png")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda r: voc_labels(r, np.full((24, 32), 21, np.uint8)), "number 21, and there are 20"),
        (lambda r: voc_labels(r, np.full((24, 32), 255, np.uint8)), "shows no class"),
        (lambda r: voc_labels(r, np.full((4, 4), 1, np.uint8)), "4x4, and the image is 24x32"),
        (lambda r: voc_labels(r, picture(), "RGB"), "should be a palette or grey image of labels"),
        (lambda r: (r / "JPEGImages/2007_000002.jpg").unlink(), "there is no .*2007_000002.jpg"),
    ],
)
def test_malformed_voc(tmp_path, spoil, says):
    root = files.voc(tmp_path)
    spoil(root)
    with pytest.raises(DatasetError, match=says):
        list(open_dataset(root))


def test_a_list_of_voc_can_not_lead_out(tmp_path):
    root = files.voc(tmp_path)
    (root / "ImageSets/Segmentation/val.txt").write_text("../../secret\n")
    with pytest.raises(DatasetError, match="can't name an item"):
        list(open_dataset(root))
    with pytest.raises(DatasetError, match="leads out of"):
        list(open_dataset(f"voc:{root},subset=../../../etc/passwd"))


def change_coco(root, kind, change):
    path = root / f"annotations/{kind}_val2017.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def segmentation(value):
    return lambda data: data["annotations"][0].update(segmentation=value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (segmentation([[1, 2, 3]]), "annotation 1: segmentation should be polygons or runs"),
        (segmentation([[0, 0, 5, 5, 1, float("1e300")]]), "its outline lies far outside"),
        (segmentation([[0, 0, 5, 5, 1, float("nan")]]), "its outline lies far outside"),
        (segmentation([[0, 0, 5, 5, 1, 10**400]]), "numbers that are none of pixels"),
        (segmentation([[-999999, -999999, 999999, 999999] * 400]), "lies far outside"),
        (segmentation([[0, 0, 32, 24] * 20_000]), "outline is 1280000 pixels long"),
        (segmentation({"size": [24, 32], "counts": [5]}), "don't add up to the image's pixels"),
        (segmentation({"size": [9, 9], "counts": [81]}), r"is \[9, 9\], and the image is \[24, 32"),
        (segmentation({"size": [24, 32], "counts": "abc" * 300}), "its runs"),
        (segmentation({"size": [24, 32], "counts": "\n"}), "its runs aren't what COCO writes"),
        (segmentation({"size": [24, 32], "counts": [800, -32]}), "don't add up"),
        (segmentation(None), "should be polygons or runs"),
        (lambda d: d.pop("categories"), "no list of categories"),
        (lambda d: d["categories"][0].pop("name"), "a category without a name"),
        (lambda d: d["images"][0].update(id="42"), "id should be a whole number, not '42'"),
        (lambda d: d["images"][0].update(file_name="../x.jpg"), "'val2017/../x.jpg' leads out of"),
        (
            lambda d: d["images"][0].update(height=48, width=64),
            "42.jpg is 24x32, and its annotations are of 48x64",
        ),
        (lambda d: d["annotations"][0].update(category_id=[17]), "category_id should be a whole"),
    ],
)
def test_malformed_coco(tmp_path, change, says):
    root = files.coco(tmp_path)
    change_coco(root, "instances", change)
    with pytest.raises(DatasetError, match=says):
        list(open_dataset(root))


@given(mask=st.integers(0, 2**120 - 1), cut=st.floats(0, 1, exclude_max=True))
def test_runs_of_coco_come_back_and_never_cut_short(mask, cut):
    """Against pycocotools' own writer: every mask, and every beginning of its text."""
    bits = np.array([mask >> i & 1 for i in range(120)], bool).reshape(10, 12)
    text = coco_mask.encode(np.asfortranarray(bits.astype(np.uint8)))["counts"].decode()
    one = {"id": 1, "segmentation": {"size": [10, 12], "counts": text}}
    np.testing.assert_array_equal(coco._decoded(one, (10, 12)), bits)
    one["segmentation"]["counts"] = text[: int(len(text) * cut)]
    with pytest.raises(DatasetError, match="cut short"):
        coco._decoded(one, (10, 12))


@pytest.mark.parametrize(
    ("segments", "says"),
    [
        (None, "the annotation of image 42 has no segments_info"),
        ([3], "the annotation of image 42 has no segments_info"),
        ([{"id": "1", "category_id": 18}], "id should be a whole number, not '1'"),
        ([{"id": 5, "category_id": 18}], "the mask of 'dog' is empty"),
    ],
)
def test_malformed_panoptic(tmp_path, segments, says):
    root = files.coco(tmp_path)
    change_coco(root, "panoptic", lambda d: d["annotations"][0].update(segments_info=segments))
    change_coco(root, "captions", lambda d: d["annotations"][1].update(caption="a dog"))
    with pytest.raises(DatasetError, match=says):
        list(open_dataset(f"coco:{root},kind=panoptic"))


def test_a_panoptic_picture_of_another_size(tmp_path):
    root = files.coco(tmp_path)
    save(root / "annotations/panoptic_val2017/000000000042.png", picture(0, (12, 32)))
    with pytest.raises(DatasetError, match=r"the mask of .* is 12x32, and the image is 24x32"):
        list(open_dataset(f"coco:{root},kind=panoptic"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["annotations"][0].update(caption=3), "caption 1 has no text"),
        (lambda d: d["annotations"][0].update(image_id=None), "image_id should be a whole number"),
    ],
)
def test_a_malformed_caption_of_coco_is_named_or_skipped(tmp_path, change, says):
    root = files.coco(tmp_path)
    change_coco(root, "captions", change)
    with pytest.raises(DatasetError, match=says):
        list(open_dataset(root))
    with pytest.warns(DatasetWarning, match=f"1 of .* skipped: .*{says}"):
        (item,) = open_dataset(root, on_error="skip")
    assert item.prompt == "A puppy and two cats below the sky."


def stray(key, value):
    """A record more, of which one doesn't know what it is of."""
    return lambda data: data[key].append(value)


OUTLINE = {"segmentation": [[0] * 300]}


@pytest.mark.parametrize("kind", ["instances", "panoptic"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (stray("annotations", {**OUTLINE, "id": 77}), "image_id should be .*'id': 77"),
        (stray("images", {"id": None, "file_name": "x.jpg"}), "id should be .*'x.jpg'"),
        (stray("categories", {"id": "a", "name": "bird"}), "id should be .*'bird'"),
        (stray("categories", {"id": 99}), "a category without a name: .*'id': 99"),
    ],
)
def test_a_stray_record_of_coco_is_one_thing_that_is_skipped(tmp_path, kind, change, says):
    root = files.coco(tmp_path)
    change_coco(root, kind, change)
    spec = f"coco:{root},kind={kind}"
    with pytest.raises(DatasetError, match=says):
        list(open_dataset(spec))
    with pytest.warns(DatasetWarning, match=f"1 of .* skipped: .*{says}"):
        (item,) = open_dataset(spec, on_error="skip")
    assert item.prompt.startswith("A puppy")


def test_the_annotations_of_coco_are_gone_through_once(tmp_path, monkeypatch):
    from wordlight.comparisons.datasets import coco

    root = files.coco(tmp_path)
    change_coco(root, "instances", stray("annotations", {"image_id": "?"}))
    change_coco(
        root,
        "instances",
        lambda d: d["images"].extend({"id": n, "file_name": f"{n}.jpg"} for n in range(5)),
    )
    asked = []
    original = coco._number
    monkeypatch.setattr(coco, "_number", lambda one, key: asked.append(key) or original(one, key))
    assert len(open_dataset(root, on_error="skip")) == 1
    assert asked.count("image_id") == 4 + 3


def test_a_coco_file_cut_short(tmp_path):
    root = files.coco(tmp_path)
    path = root / "annotations/instances_val2017.json"
    path.write_text(path.read_text()[:200])
    with pytest.raises(DatasetError, match="is no JSON, or was cut short"):
        list(open_dataset(root))


def truncate(path):
    path.write_bytes(path.read_bytes()[:1000])


def pickled(path):
    with h5py.File(path, "a") as file:
        del file["#refs#/m0"], file["#refs#/c0"]
        text = file.create_dataset("#refs#/m0", data=np.array([[b"pickle"]]))
        inner = file.create_dataset("#refs#/c0", (1, 1), dtype=h5py.ref_dtype)
        inner[0, 0] = text.ref
        file["value/gt"][0, 0] = inner.ref


def external(path):
    outside = path.with_name("outside.bin")
    outside.write_bytes(bytes(files.HEIGHT * files.WIDTH))
    with h5py.File(path, "a") as file:
        other = file.create_dataset(
            "#refs#/x0", (files.WIDTH, files.HEIGHT), np.uint8,
            external=[(os.fsencode(outside), 0, outside.stat().st_size)],
        )  # fmt: skip
        file["#refs#/c0"][0, 0] = other.ref


def elsewhere(path):
    files.imagenet_segmentation(path.with_name("other.mat"))
    with h5py.File(path, "a") as file:
        del file["value/gt"]
        file["value/gt"] = h5py.ExternalLink(path.with_name("other.mat"), "value/gt")


def all_elsewhere(path):
    files.imagenet_segmentation(path.with_name("other.mat"))
    with h5py.File(path, "a") as file:
        del file["value"]
        file["value"] = h5py.ExternalLink(path.with_name("other.mat"), "value")


def a_path_for_a_reference(path):
    """Read as one, it would lead into another file."""
    files.imagenet_segmentation(path.with_name("other.mat"))
    with h5py.File(path, "a") as file:
        file["link"] = h5py.ExternalLink(path.with_name("other.mat"), "#refs#/m0")
        cell = file.create_dataset("#refs#/x0", data=np.array([["link"]], dtype=object),
                                   dtype=h5py.string_dtype())  # fmt: skip
        file["value/gt"][0, 0] = cell.ref


def odd_name(path):
    with h5py.File(path, "a") as file:
        del file["#refs#/t0"]
        cell = file.create_dataset("#refs#/t0", data=np.array([[110.5]]))
        file["value/id"][0, 0] = cell.ref


def huge(path):
    with h5py.File(path, "a") as file:
        # Nothing of it is stored.
        cell = file.create_dataset("#refs#/x0", (3, 10**6, 10**6), np.uint8, chunks=(1, 100, 100))
        file["value/img"][0, 0] = cell.ref


def no_reference(path):
    with h5py.File(path, "a") as file:
        del file["value/gt"]
        file["value/gt"] = np.zeros((2, 1))


def unknown_synset(path):
    path.with_name("names.txt").write_text("n02121808 cat\n")


def bad_names(path):
    path.with_name("names.txt").write_text("dog\n")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (truncate, "is no HDF5 file that can be read"),
        (pickled, "the mask of image 0 should be 2-dimensional numbers"),
        (external, "the mask of image 0 is no data of this file"),
        (elsewhere, "has no value/gt of its own"),
        (all_elsewhere, "has no value of its own"),
        (a_path_for_a_reference, "the mask of image 0 is no data of this file"),
        (odd_name, "the name of image 0 is no text"),
        (huge, r"the image of image 0 is \(3, 1000000, 1000000\)"),
        (no_reference, "no references in value/gt"),
        (unknown_synset, "image 0000 is of n02084071, which has no name"),
        (bad_names, "line 1: should be a synset and its names"),
    ],
)
def test_malformed_imagenet_segmentation(tmp_path, spoil, says):
    path = files.imagenet_segmentation(tmp_path / "gtsegs_ijcv.mat")
    spoil(path)
    with pytest.raises(DatasetError, match=says):
        list(open_dataset(f"{path},names={path.with_name('names.txt')}"))


def test_images_too_large_to_be_honest_are_refused(tmp_path, monkeypatch):
    save(tmp_path / "large.png", np.zeros((40, 50, 3), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1999)
    with pytest.raises(DatasetError, match=r"large\.png is no image that can be read"):
        read_image(tmp_path / "large.png")


names = st.lists(
    st.sampled_from(["..", ".", "a", "b", "", "/", "\\", "C:", "link", "in"]),
    min_size=1,
    max_size=6,
).map("/".join)


@given(names)
def test_no_path_leads_out_of_the_root(tmp_path_factory, name):
    top = tmp_path_factory.getbasetemp() / "paths"
    if not top.exists():
        (top / "root/a/b").mkdir(parents=True)
        (top / "root/link").symlink_to(top)
        (top / "root/a/in").symlink_to(top / "root")
    root = top / "root"
    try:
        found = inside(root, name)
    except DatasetError:
        return
    assert found.resolve().is_relative_to(root.resolve())
    assert ".." not in found.relative_to(root).parts
