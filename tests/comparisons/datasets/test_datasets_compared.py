"""``compare`` on data sets: what is inverted, drawn again, skipped and refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial

import h5py
import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.comparisons import dataset_files as files
from tests.comparisons.fakes import CONTEXT, STEPS, FakeBackend, tokenize
from wordlight.attribution.methods.controls import Uniform
from wordlight.backends.prompted_data import SCENES
from wordlight.backends.scenes.grammar import SPLITS, split_of
from wordlight.backends.scenes.render import rendered
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons import compare
from wordlight.comparisons.datasets import DatasetError, DatasetWarning, ListedItem, open_dataset
from wordlight.comparisons.datasets.images.dataset_images import DatasetImages, split_of_listing
from wordlight.comparisons.datasets.images.opening import describe, open_images
from wordlight.comparisons.datasets.judged import judged_item, resized_mask
from wordlight.comparisons.datasets.rendered_scenes import RenderedScenes
from wordlight.comparisons.datasets.scenes import described
from wordlight.comparisons.results import grid
from wordlight.comparisons.results.html import write_report
from wordlight.comparisons.runs.listing import read_run


class Inverting(FakeBackend):
    """Takes any image of its size."""

    capabilities = frozenset({"denoise", "invert"})

    def __init__(self):
        super().__init__()
        self.inverted = []

    def invert(self, images, prompts, *, seed=0, steps=None):
        made = []
        for image, prompt in zip(images, prompts, strict=True):
            self.inverted.append((prompt, seed))
            made.append(
                Trajectory(
                    prompt=prompt,
                    tokens=tokenize(prompt),
                    embeddings=np.zeros((CONTEXT, 4), np.float32),
                    empty_embeddings=np.zeros((CONTEXT, 4), np.float32),
                    timesteps=np.arange(STEPS, 0, -1).astype(np.float32),
                    latents=np.zeros((STEPS, 4, 16, 16), np.float32),
                    image=image,
                    guidance_scale=1.0,
                    model_id=self.model_id,
                    framework=self.framework,
                    seed=seed,
                    noise_source="noising",
                )
            )
        return made


def test_images_and_masks_come_at_the_models_size(tmp_path):
    backend = Inverting()
    root = files.coco_gen(tmp_path / "set", 4)
    images = DatasetImages(open_dataset(root), backend, "test", 3)
    items = list(images.stream(tmp_path / "kept"))
    assert len(items) == 3
    for item in items:
        assert item.trajectory.image.shape == (64, 64, 3)
        cat, dogs = item.words
        assert {cat.word.text, dogs.word.text} == {"Cat", "dog … dog"}
        assert cat.headline
        assert cat.referent != dogs.referent
        # 24 x 32 became 64 x 64: a box's share of the image stays, to a row of pixels.
        assert dogs.mask.mean() == pytest.approx(files.DOG.mean(), abs=1 / 64)
    # The data set's own seeds, and once each.
    assert sorted(seed for _, seed in backend.inverted) == sorted(
        int((root / item.sample / "seed.txt").read_text()) for item in items
    )
    list(images.stream(tmp_path / "kept"))
    assert len(backend.inverted) == 3


def test_a_stream_tells_at_its_end_what_it_left_out(tmp_path):
    root = files.coco_gen(tmp_path / "set", 4)
    dataset = open_dataset(root, on_error="skip")
    images = DatasetImages(dataset, Inverting(), "test", 3)
    files.save_alpha(root / images.samples[1] / "dog.gt.png", files.DOG[:-2])
    with pytest.warns(DatasetWarning, match="1 of .* skipped: .*dog"):
        assert len(list(images.stream(tmp_path / "kept"))) == 2
    assert list(images.left_out) == [images.samples[1]]


def test_halves_of_pixels_belong_to_a_mask():
    mask = np.zeros((4, 4), bool)
    mask[:, 0] = True
    mask[0, 2] = True
    np.testing.assert_array_equal(resized_mask(mask, (2, 2)), [[True, False], [True, False]])
    np.testing.assert_array_equal(resized_mask(mask, (8, 8)), np.kron(mask, np.ones((2, 2), bool)))


def test_a_word_whose_mask_has_no_pixel_left_is_dropped(tmp_path):
    dataset = open_dataset(files.coco_gen(tmp_path / "set", 1))
    (annotated,) = dataset
    (trajectory,) = Inverting().invert([np.zeros((8, 8, 3), np.uint8)], [annotated.prompt])
    speck = np.zeros((files.HEIGHT, files.WIDTH), bool)
    speck[0, 0] = True
    first, second = annotated.annotations
    item = judged_item(
        "it", "test", trajectory, [first, type(second)(second.place, speck, "object")]
    )
    assert item.dropped == ("object",)
    assert [scored.headline for scored in item.words] == [False]
    assert item.words[0].row == "one-object"


def test_splits_part_no_group_and_do_not_move():
    listing = tuple(ListedItem(f"{i}-{k}", f"group {i}") for i in range(20) for k in range(3))
    calibration = split_of_listing(listing, "calibration")
    test = split_of_listing(listing, "test")
    assert sorted(one.sample for one in calibration + test) == sorted(o.sample for o in listing)
    assert not {one.group for one in calibration} & {one.group for one in test}
    assert 15 <= len(calibration) <= 17
    # The order in which a format lists them doesn't matter.
    assert split_of_listing(listing[::-1], "test") == test


def test_a_data_sets_own_splits_are_kept():
    listing = (ListedItem("a", "a", "test"), ListedItem("b", "b", "calibration"))
    assert split_of_listing(listing, "calibration") == listing[1:]
    with pytest.raises(DatasetError, match="some items say their split, and c doesn't"):
        split_of_listing((*listing, ListedItem("c", "c")), "test")


def run(data, out, backend=None, **options):
    options = {"n": 3, "calibration": 1, "progress": False, **options}
    return compare(backend or Inverting(), ["uniform"], data=data, out=out, **options)


def test_a_comparison_on_coco_gen(tmp_path):
    root = files.coco_gen(tmp_path / "set", 4)
    found = run(f"coco-gen:{root}", tmp_path / "out")
    # The uniform control scores each mask's share.
    shares = [
        scored.mask.mean()
        for item in DatasetImages(open_dataset(root), Inverting(), "test", 3).stream(tmp_path / "k")
        for scored in item.words
    ]
    assert found.estimate("uniform", "miou@0.4").mean == pytest.approx(np.mean(shares))
    assert found.facts.accounting.kept == {"object": 6}
    text = " ".join(found.text.split())
    assert "3 test images of coco-gen (set), seen by renderer" in text
    assert "6 objects' names in images of two or more objects" in text
    # There are no other words, so nothing is said of them.
    assert "mIoU@best of" not in text
    settings = json.loads((tmp_path / "out/settings.json").read_text())["settings"]
    assert settings["data"]["format"] == "coco-gen"
    # Another mask is another setting, also where its file has the same size.
    sample = min(path.name for path in (tmp_path / "out/samples").glob("10*")).split(".")[0]
    mask = root / sample / "cat.gt.png"
    mask.write_bytes(mask.read_bytes()[:-1] + b"\x00")
    with pytest.raises(ValueError, match=r"data\.(calibration\.)?digest was"):
        run(f"coco-gen:{root}", tmp_path / "out")


def test_malformed_items_stop_a_comparison_or_are_counted(tmp_path):
    root = files.coco_gen(tmp_path / "set", 6)
    _, test = open_images(f"coco-gen:{root}", Inverting(), calibration=1, n=4, seed=0)
    spoiled = test.samples[2]
    files.save_alpha(root / spoiled / "dog.gt.png", files.DOG[:-2])
    with pytest.raises(DatasetError, match=f"{spoiled}: the mask of 'dog' and 'dog' is 22x32"):
        run(root, tmp_path / "out", n=4)
    with pytest.warns(DatasetWarning, match="1 of .* skipped"):
        found = run(root, tmp_path / "skipping", n=4, on_error="skip")
    assert found.facts.n == 3
    # Nothing is left to do of it.
    assert read_run(tmp_path / "skipping").state == "finished"


def several_of_coco(root, kind="instances"):
    """Five images: the one that there is, and copies under other names; the second leads out."""
    name = "000000000042"
    files.coco(root)
    masks = root / f"annotations/{kind}_val2017.json"
    captions = root / "annotations/captions_val2017.json"
    of_masks, of_captions = (json.loads(path.read_text()) for path in (masks, captions))
    (image,), annotations = of_masks["images"], list(of_masks["annotations"])
    told = list(of_captions["annotations"])
    for number in range(1, 5):
        shutil.copy(root / f"val2017/{name}.jpg", root / f"val2017/{number}.jpg")
        called = "../2.jpg" if number == 2 else f"{number}.jpg"
        of_masks["images"].append({**image, "id": number, "file_name": called})
        of_masks["annotations"] += [{**one, "image_id": number} for one in annotations]
        of_captions["annotations"] += [{**one, "image_id": number} for one in told]
    files.write_json(masks, of_masks)
    files.write_json(captions, of_captions)
    return f"coco:{root},kind={kind}"


def several_of_voc(root):
    """As many; the second image is a link out of the data set."""
    files.voc(root)
    images, labels = root / "JPEGImages", root / "SegmentationClass"
    for number in range(1, 6):
        shutil.copy(images / "2007_000001.jpg", images / f"{number}.jpg")
        shutil.copy(labels / "2007_000001.png", labels / f"{number}.png")
    shutil.move(images / "2.jpg", root.parent / "outside.jpg")
    (images / "2.jpg").symlink_to(root.parent / "outside.jpg")
    (root / "ImageSets/Segmentation/val.txt").write_text("1\n2\n3\n4\n5\n")
    return f"voc:{root}"


def several_of_imagenet(root):
    """As many; of the third, the image is no picture."""
    root.mkdir()
    names = [f"{synset}_1" for synset in ("n02084071", "n02121808") for _ in range(3)][:5]
    path = files.imagenet_segmentation(root / "segs.mat", names)
    with h5py.File(path, "a") as file:
        file["value/img"][2, 0] = file.create_dataset("#refs#/x", data=np.zeros((2, 2))).ref
    return f"{path},names={root / 'names.txt'}"


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (several_of_coco, "leads out of .*: paths must lie inside"),
        (partial(several_of_coco, kind="panoptic"), "leads out of .*: paths must lie inside"),
        (several_of_voc, "leads out of .* by a symbolic link"),
        (several_of_imagenet, "the image of image 2 should be 3-dimensional"),
    ],
)
def test_what_leads_out_of_a_data_set_stops_a_comparison_or_is_counted(tmp_path, made, says):
    spec = made(tmp_path / "set")
    split = {name: len(split_of_listing(open_dataset(spec).listing, name)) for name in
             ("calibration", "test")}  # fmt: skip
    counts = {"calibration": split["calibration"], "n": split["test"]}
    with pytest.raises(DatasetError, match=says):
        run(spec, tmp_path / "out", **counts)
    with pytest.warns(DatasetWarning, match=f"1 of .* skipped: .*{says}"):
        found = run(spec, tmp_path / "skipping", on_error="skip", **counts)
    assert sum(counts.values()) == 5
    assert found.facts.n in (split["test"], split["test"] - 1)
    assert read_run(tmp_path / "skipping").state == "finished"


def maps_of(samples, folder):
    """Precomputed maps, as somebody makes them of a run's images."""
    for path in samples.glob("*.safetensors"):
        Uniform(Inverting()).attribute(Trajectory.load(path)).save(folder / path.name)
    return {"mine": str(folder)}


def test_precomputed_maps_are_not_asked_for_of_what_is_left_out(tmp_path):
    root = files.coco_gen(tmp_path / "set", 6)
    _, test = open_images(root, Inverting(), calibration=1, n=4, seed=0)
    spoiled, *others = test.samples
    files.save_alpha(root / spoiled / "dog.gt.png", files.DOG[:-2])
    (root / others[0] / "prompt.txt").write_text("a dog and a cat" * 50)
    options = {"n": 4, "on_error": "skip"}
    with pytest.warns(DatasetWarning, match="2 of .* skipped"):
        alone = run(root, tmp_path / "alone", **options)
    maps = maps_of(alone.out / "samples", tmp_path / "maps")
    with pytest.warns(DatasetWarning, match="2 of .* skipped"):
        found = run(root, tmp_path / "out", maps=maps, **options)
    assert found.facts.n == 2
    assert found.estimate("mine", "miou@0.4") == found.estimate("uniform", "miou@0.4")
    # One of an image that there is is missed beforehand, and told apart from those.
    (tmp_path / f"maps/{others[1]}.safetensors").unlink()
    backend = Inverting()
    with pytest.raises(ValueError, match=rf"lack .*{others[1]}.* \(1 of 5 files are missing\)"):
        run(root, tmp_path / "other", backend, maps=maps, **options)
    assert not backend.inverted


def test_precomputed_maps_of_what_is_not_drawn_the_same_are_not_asked_for(tmp_path):
    backend = Inverting()
    root = files.plain_folder(tmp_path / "set", 5)
    lines = [json.loads(line) for line in (root / "items.jsonl").read_text().splitlines()]
    for seed, line in enumerate(lines):
        line["seed"] = seed
        drawn = backend.sample(line["prompt"], seed=seed).image
        files.save(root / line["image"], drawn)
        line["stuff"] = []
        for k, mask in enumerate(line["masks"].values()):
            files.save_alpha(root / mask, files.box(k * 20, 0, k * 20 + 9, 9, (64, 64)))
    (root / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, test = open_images(root, backend, calibration=1, n=4, seed=0)
    other, kept, *_ = test.samples
    files.save(root / f"images/{other}.png", files.picture(1, (64, 64)))
    options = {"n": 4, "on_error": "skip", "redraw": True}
    with pytest.warns(DatasetWarning, match="draws another image"):
        alone = run(root, tmp_path / "alone", **options)
    maps = maps_of(alone.out / "samples", tmp_path / "maps")
    with pytest.warns(DatasetWarning, match="draws another image"):
        assert run(root, tmp_path / "out", maps=maps, **options).facts.n == 3
    # What is drawn the same is missed when it is judged.
    (tmp_path / f"maps/{kept}.safetensors").unlink()
    with pytest.raises(ValueError, match=rf"the maps of 'mine' lack .*{kept}\.safetensors"):
        run(root, tmp_path / "third", maps=maps, **options)


def test_the_page_shows_a_word_that_stands_at_several_places(tmp_path):
    root = files.coco_gen(tmp_path / "set", 4)
    backend = Inverting()

    class Flat(Uniform):
        """No control, so that the page shows its cases."""

        name = "flat"
        family = "perturbation"

    compare(
        backend,
        [Flat(backend)],
        data=root,
        out=tmp_path / "out",
        n=3,
        calibration=1,
        progress=False,
    )
    page = write_report(tmp_path / "out").read_text()
    assert "map of dog … dog, IoU" in page


def test_other_options_and_other_records_are_other_items(tmp_path):
    root = files.coco_gen(tmp_path / "set", 1)
    every, narrow = (
        open_dataset(f"coco-gen:{root},words={words}").identity(["100"])
        for words in ("all", "coco80")
    )
    assert every != narrow
    folder = files.plain_folder(tmp_path / "folder", 1)
    there = open_dataset(folder)
    assert len(there) == 1
    before = there.identity(["0"])
    items = folder / "items.jsonl"
    items.write_text(items.read_text().replace('"stuff": ["sky"]', '"stuff": []'))
    changed = open_dataset(folder)
    assert len(changed) == 1
    assert changed.identity(["0"]) != before


def test_every_file_that_masks_come_from_tells_a_run_from_others(tmp_path):
    root = files.coco(tmp_path)
    name = "000000000042"

    def digest(kind):
        dataset = open_dataset(f"coco:{root},kind={kind}")
        assert len(dataset) == 1
        return dataset.identity([name])["digest"]

    for kind in ("instances", "stuff", "panoptic"):
        before = digest(kind)
        changed = root / f"annotations/{kind}_val2017.json"
        changed.write_text(changed.read_text() + " ")
        assert digest(kind) != before
    before = digest("panoptic")
    files.save(root / f"annotations/panoptic_val2017/{name}.png", files.picture(9))
    assert digest("panoptic") != before


def test_files_are_read_once_to_tell_a_run_from_others(tmp_path, monkeypatch):
    from wordlight.comparisons.datasets import dataset

    root = files.coco_gen(tmp_path / "set", 4)
    read = []
    original = dataset._digest_of
    monkeypatch.setattr(dataset, "_digest_of", lambda path: read.append(path) or original(path))
    run(f"coco-gen:{root}", tmp_path / "out")
    assert len(read) == len(set(read)) == len(list(root.rglob("*.*")))


TESTED = [split for split in SPLITS if split != "calibration"]


@pytest.mark.parametrize("split", TESTED)
def test_every_split_of_rendered_scenes_is_inverted_with_exact_masks(tmp_path, split):
    backend = Inverting()
    spec = f"rendered-scenes,test={split}"
    _, test = open_images(spec, backend, calibration=1, n=3, seed=0)
    for index, item in enumerate(test.stream(tmp_path)):
        drawn = rendered(split, index)
        assert backend.inverted[index][0] == item.trajectory.prompt == drawn.scene.prompt
        np.testing.assert_array_equal(item.trajectory.image, drawn.image)
        exact = {drawn.scene.words[k].start: mask for k, mask in drawn.word_masks().items()}
        assert {scored.word.start for scored in item.words} <= set(exact)
        for scored in item.words:
            np.testing.assert_array_equal(scored.mask, exact[scored.word.start])
    assert not backend.drawn


def test_a_comparison_on_rendered_scenes(tmp_path):
    spec = "rendered-scenes,test=unseen-pairs"
    found = run(spec, tmp_path, n=12, calibration=8)
    # The uniform control scores the share of each exact mask of a shape's word.
    shares = [
        one.word_masks()[place].mean()
        for one in (rendered("unseen-pairs", index) for index in range(12))
        for place, _, kind in described(one.scene.words, SCENES)
        if len(one.scene.groups) > 1 and kind == "shape-noun"
    ]
    assert found.estimate("uniform", "miou@0.4").mean == pytest.approx(np.mean(shares))
    assert found.estimate("uniform", "miou@0.4").n == len(shares)
    text = " ".join(found.text.split())
    assert "12 test images of rendered-scenes (unseen-pairs), seen by renderer" in text


@pytest.mark.parametrize("split", TESTED)
def test_every_split_of_scenes_is_drawn(tmp_path, split):
    _, test = open_images(f"scenes,test={split}", FakeBackend(), calibration=1, n=2, seed=0)
    assert [one.split for one in test.stream(tmp_path)] == [split] * 2
    assert {split_of(scene) for scene in test.scenes} == {split}
    # The table says which it is, unless it is the one for that.
    assert describe(test) == (None if split == "test" else f"scenes ({split}), drawn")


def test_the_renderers_version_tells_rendered_scenes_from_others(monkeypatch):
    before = open_dataset("rendered-scenes").identity(["rendered-test-0000"])
    monkeypatch.setattr(RenderedScenes, "data", replace(SCENES, version=999))
    assert open_dataset("rendered-scenes").identity(["rendered-test-0000"]) != before


def test_the_picture_shows_the_masks_of_a_data_sets_objects(tmp_path):
    dataset = open_dataset(files.coco_gen(tmp_path / "set", 4))
    (item, *_) = DatasetImages(dataset, Inverting(), "test", 1).stream(tmp_path / "kept")
    axis = Figure().subplots()
    grid._show_masks(axis, item)
    picture = np.asarray(axis.images[0].get_array())
    times = picture.shape[0] // 64
    for scored in item.words:
        found = picture[::times, ::times][scored.mask]
        assert (found != grid._PAPER).any(axis=1).all()
    assert {text.get_text() for text in axis.texts} == {"Cat", "dog … dog"}
    names = {grid._name(item, scored) for scored in item.words}
    assert names == {"“Cat”", "“dog … dog”"}


def test_a_word_has_one_mask(tmp_path):
    (annotated,) = open_dataset(files.coco_gen(tmp_path / "set", 1))
    (trajectory,) = Inverting().invert([np.zeros((64, 64, 3), np.uint8)], [annotated.prompt])
    first, _ = annotated.annotations
    with pytest.raises(DatasetError, match="has two masks"):
        judged_item("it", "test", trajectory, [first, first])


def test_one_object_an_image_is_the_headline_where_the_data_set_is_so(tmp_path):
    path = files.imagenet_segmentation(tmp_path / "segs.mat", ["n02084071_1"] * 2 + ["n02121808_1"])
    spec = f"{path},names={path.with_name('names.txt')}"
    found = run(spec, tmp_path / "out", n=1)
    assert "1 names of the one object that each image shows" in found.text
    assert found.estimate("uniform", "miou@0.4").mean == pytest.approx(files.DOG.mean(), abs=1 / 64)


def test_images_that_are_drawn_again_must_come_out_the_same(tmp_path):
    root = tmp_path / "set"
    backend = Inverting()
    prompts = ["a red circle and a blue square"] * 1 + [f"a dog and cat {i}" for i in range(3)]
    for index, prompt in enumerate(prompts):
        drawn = backend.sample(prompt, seed=index)
        folder = root / str(index)
        files.save(folder / "output.png", drawn.image)
        (folder / "prompt.txt").write_text(prompt)
        (folder / "seed.txt").write_text(str(index))
        words = ("circle", "square") if index == 0 else ("dog", "cat")
        for k, word in enumerate(words):
            files.save_alpha(
                folder / f"{word}.gt.png", files.box(k * 20, 0, k * 20 + 9, 9, (64, 64))
            )
    backend.drawn.clear()
    found = run(root, tmp_path / "out", backend, redraw=True)
    assert len(backend.drawn) >= 4
    assert not backend.inverted
    assert "drawn again by renderer" in found.text
    for folder in root.iterdir():
        files.save(folder / "output.png", files.picture(1, (64, 64)))
    with pytest.raises(DatasetError, match="draws another image of its prompt and seed"):
        run(root, tmp_path / "other", redraw=True)


@pytest.mark.parametrize(
    ("data", "options", "says"),
    [
        ("scenes,test=tests", {}, "no split 'tests'"),
        ("scenes,test=calibration", {}, "can't be tested on"),
        ("scenes,train=test", {}, "no option 'train'"),
        ("things,test=tests", {}, "no split 'tests'"),
        ("scenes", {"redraw": True}, "nothing to redraw"),
        ("{set}", {"n": 9}, r"1 for calibration and 3 for test\), too few for n 9"),
        ("{set}", {"calibration": -1}, "calibration must be a whole number from 0 to 1000000"),
        ("{set}", {"calibration": 0}, "no calibration images to choose it on"),
        ("nowhere", {}, "there is no data set at nowhere"),
    ],
)
def test_what_can_not_be_judged_on_leaves_nothing(tmp_path, data, options, says):
    root = files.coco_gen(tmp_path / "set", 4)
    with pytest.raises(ValueError, match=says):
        run(data.replace("{set}", str(root)), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_scenes_of_another_split(tmp_path):
    backend = Inverting()
    tuning, test = open_images("scenes,test=unseen-pairs", backend, calibration=1, n=2, seed=0)
    assert test.samples == ("scenes-unseen-pairs-0000", "scenes-unseen-pairs-0001")
    assert tuning.samples == ("scenes-calibration-0000",)
    assert test.identity() != tuning.identity()
