"""Segmenters through transformers: tiny random networks, saved to folders and loaded back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.oneformer import image_processing_pil_oneformer

from tests.backends.torch import segmenters as tiny
from wordlight.backends.segmenters.loading import load_segmenter
from wordlight.backends.segmenters.segmenter import SegmenterLoadError
from wordlight.comparisons.rows.supervised import SegmenterAnnotator

MAKERS = {"mask2former": tiny.mask2former, "oneformer": tiny.oneformer, "clipseg": tiny.clipseg}
IMAGE = np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: make(tmp_path_factory.mktemp(kind)) for kind, make in MAKERS.items()}


@pytest.fixture
def load(folders, tmp_path):
    def load(kind, options="", answer=None):
        spec = f"{kind}:{folders[kind]}{options}"
        segmenter = load_segmenter(spec, device="cpu", cache=tmp_path / "cache")
        if answer is not None:
            plant(segmenter, *answer)
        return segmenter

    return load


def plant(segmenter, classes, masks):
    """Random networks are sure of nothing: this one is made sure of some queries' classes and
    masks, and that the other queries are of nothing.

    ``masks`` gives logits ``(queries, height, width)`` of the network's own grid.
    """

    def hook(_network, _inputs, outputs):
        logits = torch.zeros_like(outputs.class_queries_logits)
        logits[..., -1] = 20
        for query, number in enumerate(classes):
            logits[:, query] = torch.nn.functional.one_hot(torch.tensor(number), logits.shape[-1])
            logits[:, query] *= 20
        planted = torch.full_like(outputs.masks_queries_logits, -20)
        planted[:, : len(classes)] = torch.as_tensor(masks(*planted.shape[-2:]))
        outputs.class_queries_logits, outputs.masks_queries_logits = logits, planted
        return outputs

    segmenter.network.register_forward_hook(hook)


def halves(height, width):
    left = np.where(np.arange(width) < width // 2, 8.0, -8.0) * np.ones((height, 1))
    return np.stack([left, -left])


#: A dog on the left and a cat on the right.
DOG_AND_CAT = ([1, 2], halves)


def count_passes(segmenter):
    passes = []
    segmenter.network.register_forward_hook(lambda *_: passes.append(1))
    return passes


UNIVERSAL = pytest.mark.parametrize("kind", ["mask2former", "oneformer"])
TASKS = pytest.mark.parametrize("task", ["panoptic", "instance", "semantic"])


@UNIVERSAL
@TASKS
def test_a_words_mask_is_that_of_its_classes(load, kind, task):
    segmenter = load(kind, f",task={task}", DOG_AND_CAT)
    assert segmenter.vocabulary == ("person", "dog", "cat", "sky")
    words = ["dogs", "puppy", "kitten", "people", "quark"]
    dogs, puppy, kitten, people, quark = segmenter.masks(IMAGE, words)
    left = np.zeros(IMAGE.shape[:2], bool)
    left[:, : IMAGE.shape[1] // 2] = True
    np.testing.assert_array_equal(dogs, left)
    np.testing.assert_array_equal(puppy, left)
    np.testing.assert_array_equal(kitten, ~left)
    assert not people.any()
    # It has no class for such a word.
    assert quark is None


def blobs(height, width):
    """Four objects side by side with ragged borders, which overlap a little."""
    rng = np.random.default_rng(0)
    places = np.arange(width) - (np.arange(4)[:, None] + 0.5) * width / 4
    core = 2.0 - 18 * np.abs(places / width)
    return core[:, None, :] + rng.normal(0, 0.4, (4, height, width))


@UNIVERSAL
@TASKS
def test_the_masks_are_those_of_transformers_own_reading(load, kind, task, monkeypatch):
    segmenter = load(kind, f",task={task}", ([1, 2, 1, 3], blobs))
    inputs = segmenter._inputs(IMAGE)
    with torch.inference_mode():
        outputs = segmenter.network(**inputs)

    def resize(masks, size, interpolation):
        assert interpolation == "bilinear"
        return torch.nn.functional.interpolate(masks, size, mode="bilinear", antialias=True)

    # What it takes of torchvision, which isn't here.
    vision = types.SimpleNamespace(
        resize=resize, InterpolationMode=types.SimpleNamespace(BILINEAR="bilinear")
    )
    monkeypatch.setattr(image_processing_pil_oneformer, "tvF", vision, raising=False)
    read = getattr(segmenter.processor, f"post_process_{task}_segmentation")
    extra = {"label_ids_to_fuse": set()} if task == "panoptic" else {}
    (found,) = read(outputs, target_sizes=[IMAGE.shape[:2]], **extra)
    if task == "semantic":
        labels = found.numpy()
    else:
        labels = np.full(IMAGE.shape[:2], -1)
        for one in found["segments_info"]:
            labels[found["segmentation"].numpy() == one["id"]] = one["label_id"]
    assert len(np.unique(labels)) > 2
    masks = segmenter.masks(IMAGE, list(segmenter.vocabulary))
    for number, mask in enumerate(masks):
        np.testing.assert_array_equal(mask, labels == number)


def test_clipseg_finds_any_word_from_its_threshold_on(load):
    low, high = load("clipseg", ",threshold=0.001"), load("clipseg", ",threshold=0.999")
    (everything,) = low.masks(IMAGE, ["quark"])
    (nothing,) = high.masks(IMAGE, ["quark"])
    assert everything.shape == IMAGE.shape[:2]
    assert everything.all()
    assert not nothing.any()
    first, second = load("clipseg").masks(IMAGE, ["a dog", "a cat"])
    assert (first != second).any()


@pytest.mark.parametrize(("kind", "passes"), [("mask2former", 1), ("oneformer", 1), ("clipseg", 2)])
def test_an_image_is_looked_at_once(load, tmp_path, kind, passes):
    segmenter = load(kind)
    seen = count_passes(segmenter)
    first = segmenter.masks(IMAGE, ["dog", "cat"])
    again = segmenter.masks(IMAGE, ["dog", "cat"])
    assert len(seen) == passes
    # Another process reads what this one kept.
    other = load(kind)
    seen_by_other = count_passes(other)
    for one, two, three in zip(first, again, other.masks(IMAGE, ["dog", "cat"]), strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)
    assert not seen_by_other
    # A damaged file is made again; another image is another file.
    files = sorted((tmp_path / "cache").rglob("*.safetensors"))
    assert len(files) == passes
    files[0].write_bytes(files[0].read_bytes()[:100])
    segmenter.masks(IMAGE, ["dog", "cat"])
    assert len(seen) == passes + 1
    segmenter.masks(IMAGE[::-1].copy(), ["dog"])
    assert len(seen) == passes + 2
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_other_weights_are_another_revision(folders, load, tmp_path):
    before = load("mask2former")
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folders["mask2former"].iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    same = load_segmenter(f"mask2former:{copy}", cache=tmp_path / "cache")
    assert same.same_weights(before)
    weights = load_file(copy / "model.safetensors")
    name = next(iter(weights))
    weights[name] = weights[name] + 1
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    changed = load_segmenter(f"mask2former:{copy}", cache=tmp_path / "cache")
    assert not changed.same_weights(before)
    assert changed.cache.folder != same.cache.folder


@pytest.mark.slow
def test_the_maker_of_the_masks_is_no_row_under_its_other_name(folders, tmp_path):
    """A model of the Hub's cache, and the folder of that cache: in a process of its own, since the
    libraries read where the cache is when they are imported."""
    repo = tmp_path / "hub/models--somebody--tiny"
    snapshot = repo / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(folders["mask2former"], snapshot)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text(snapshot.name)
    code = (
        "from wordlight.comparisons.rows.supervised import mask_maker, supervised_rows\n"
        "names = ['mask2former:somebody/tiny', f'mask2former:{SNAPSHOT}']\n"
        "for made, row in (names, names[::-1]):\n"
        "    maker = mask_maker(made, 'cpu')\n"
        "    try:\n"
        "        print(supervised_rows({'m': row}, maker, [], 'cpu'))\n"
        "    except ValueError as error:\n        print(maker.segmenter.revision, error)\n"
    ).replace("{SNAPSHOT}", str(snapshot))
    environment = {
        **os.environ,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    command = [sys.executable, "-c", code]
    ran = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    by_id, by_folder = ran.stdout.splitlines()
    assert by_id.startswith(f"{snapshot.name} m made the masks")
    assert " m made the masks" in by_folder
    assert snapshot.name not in by_folder


def test_a_segmenter_annotates_what_a_prompt_names(load):
    annotator = SegmenterAnnotator(load("mask2former", answer=DOG_AND_CAT))
    found, missed = annotator.annotate("A puppy, two dogs and a man", IMAGE)
    assert [one.place for one in found] == [[slice(2, 7), slice(13, 17)]]
    assert missed == ["person"]


def test_classes_and_synonyms_of_ones_own(load, tmp_path):
    (tmp_path / "classes.txt").write_text("circle\nsquare\n")
    assert load("clipseg", f",classes={tmp_path / 'classes.txt'}").vocabulary == (
        "circle",
        "square",
    )
    (tmp_path / "own.tsv").write_text("dog\tmutt\n")
    segmenter = load("mask2former", f",synonyms={tmp_path / 'own.tsv'}", DOG_AND_CAT)
    mutt, puppy = segmenter.masks(IMAGE, ["mutt", "puppy"])
    assert mutt.any()
    assert puppy is None


def test_loading_is_silent_and_leaves_transformers_as_it_was(load, capfd):
    assert transformers.utils.logging.is_progress_bar_enabled()
    load("clipseg")
    assert capfd.readouterr().err == ""
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_an_image_that_is_none_is_refused(load):
    with pytest.raises(ValueError, match="uint8"):
        load("mask2former").masks(IMAGE.astype(float), ["dog"])


def copied(source, target):
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def pickled_weights(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def missing_weights(folder):
    weights = load_file(folder / "model.safetensors")
    del weights[next(name for name in weights if "class_predictor" in name)]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def cut_weights(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def other_kind(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "clipseg"}))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (no_weights, "no mask2former can be loaded from"),
        (pickled_weights, "no mask2former can be loaded from"),
        (missing_weights, "lacks 1 weights, such as class_predictor"),
        (cut_weights, "no mask2former can be loaded from"),
        (other_kind, "is a clipseg model, and no mask2former"),
    ],
)
def test_weights_that_are_not_all_there_are_refused(folders, tmp_path, spoil, says):
    folder = copied(folders["mask2former"], tmp_path / "copy")
    spoil(folder)
    with pytest.raises(SegmenterLoadError, match=says) as caught:
        load_segmenter(f"mask2former:{folder}", cache=tmp_path)
    assert "\n" not in str(caught.value)
