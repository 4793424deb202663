"""Supervised segmenters as makers of masks and as rows; and which words name a class."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.comparisons import dataset_files as files
from tests.comparisons.datasets.test_datasets_compared import Inverting
from wordlight.backends.segmenters.classes import STUFF, THINGS, VOC, is_stuff, plain
from wordlight.backends.segmenters.loading import load_segmenter
from wordlight.backends.segmenters.matching import (
    classes_of,
    own_synonyms,
    places,
    places_of_classes,
    read_synonyms,
    spellings,
)
from wordlight.backends.segmenters.segmenter import Segmenter, SegmenterLoadError
from wordlight.comparisons import compare
from wordlight.comparisons.datasets import DatasetError


class Known(Segmenter):
    """Finds a dog in the upper and a cat in the lower half of anything."""

    kind = "known"

    def __init__(self, name="known", *, finds=("dog", "cat")):
        self.model_id, self.revision, self.options = name, name, {}
        self.finds = finds

    @property
    def vocabulary(self):
        return ("dog", "cat", "sky")

    def _masks(self, image, words):
        found = []
        for word in words:
            named = classes_of(word, self.vocabulary)
            mask = np.zeros(image.shape[:2], bool)
            half = image.shape[0] // 2
            if named and named[0] in self.finds:
                mask[slice(0, half) if named[0] == "dog" else slice(half, None)] = True
            found.append(mask if named else None)
        return found


def bare_images(root, prompts):
    lines = []
    for index, prompt in enumerate(prompts):
        files.save(root / f"{index}.png", files.picture(index))
        lines.append({"image": f"{index}.png", "prompt": prompt})
    (root / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


PROMPTS = [f"two dogs and a kitten, number {i}" for i in range(5)]


def run(root, out, methods=("uniform",), **options):
    options = {"n": 3, "calibration": 1, "progress": False, **options}
    return compare(Inverting(), list(methods), data=root, out=out, **options)


def test_a_segmenter_makes_the_masks_of_images_that_have_none(tmp_path):
    found = run(bare_images(tmp_path / "set", PROMPTS), tmp_path / "out", masks=Known())
    # Each of the two masks is half of the image.
    assert found.estimate("uniform", "miou@0.4").mean == pytest.approx(0.5)
    assert found.facts.accounting.kept == {"object": 6}
    settings = json.loads((tmp_path / "out/settings.json").read_text())["settings"]
    assert settings["data"]["masks"] == "known:known@known"


def test_prompts_alone_are_drawn_and_segmented(tmp_path):
    lines = [{"id": str(i), "prompt": prompt} for i, prompt in enumerate(PROMPTS)]
    (tmp_path / "items.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    found = run(tmp_path, tmp_path / "out", masks=Known())
    assert found.estimate("uniform", "miou@0.4").mean == pytest.approx(0.5)
    text = " ".join(found.text.split())
    assert f"3 test images of folder ({tmp_path.name}), drawn by renderer" in text
    settings = json.loads((tmp_path / "out/settings.json").read_text())["settings"]
    assert settings["data"]["images"] == "drawn"


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_given_and_drawn_images_never_share_a_table(tmp_path, on_error):
    root = bare_images(tmp_path / "set", PROMPTS)
    with (root / "items.jsonl").open("a") as file:
        file.write('\n{"id": "alone", "prompt": "two dogs and a kitten", "seed": 1}\n')
    says = "5 items with an image and 1 with a prompt alone, such as alone: given and drawn images"
    with pytest.raises(DatasetError, match=says) as caught:
        run(root, tmp_path / "out", masks=Known(), on_error=on_error)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_where_all_are_drawn_prompts_may_stand_beside_images(tmp_path):
    root = tmp_path / "set"
    lines = [{"id": str(i), "prompt": p, "seed": i} for i, p in enumerate(PROMPTS)]
    for line in lines[1:]:
        drawn = Inverting().sample(line["prompt"], seed=line["seed"])
        files.save(root / f"{line['id']}.png", drawn.image)
        line["image"] = f"{line['id']}.png"
    (root / "items.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    found = run(root, tmp_path / "out", masks=Known(), redraw=True)
    assert "folder (set), drawn by renderer" in " ".join(found.text.split())


def test_what_a_segmenter_does_not_find_is_dropped_and_counted(tmp_path):
    root = bare_images(tmp_path / "set", [f"{p} below the sky" for p in PROMPTS])
    found = run(root, tmp_path / "out", masks=Known())
    assert found.facts.accounting.dropped["object"] == 3


def test_images_without_masks_need_a_segmenter(tmp_path):
    root = bare_images(tmp_path / "set", PROMPTS)
    with pytest.raises(DatasetError, match="has no mask, and no segmenter was named"):
        run(root, tmp_path / "out")


def test_segmenters_are_rows_and_an_empty_mask_scores_nothing(tmp_path):
    root = bare_images(tmp_path / "set", PROMPTS)
    rows = {
        "same": Known("other"),
        "blind": Known("third", finds=()),
        "half": Known("fourth", finds=("dog",)),
    }
    found = run(root, tmp_path / "out", masks=Known(), segmenters=rows)
    for metric in ("miou@0.3", "miou@0.4", "miou@best"):
        assert found.estimate("same", metric).mean == 1
        assert found.estimate("blind", metric).mean == 0
        assert found.estimate("half", metric).mean == 0.5
    assert "uniform" in found.text
    assert [entry.family for entry in found.table_rows if entry.name == "same"] == ["supervised"]


def test_the_maker_of_the_masks_is_no_row(tmp_path):
    root = bare_images(tmp_path / "set", PROMPTS)
    again = Known()
    again.options = {"threshold": 0.1}
    with pytest.raises(ValueError, match=r"same made the masks: .* can't be a row"):
        run(root, tmp_path / "out", masks=Known(), segmenters={"same": again})
    with pytest.raises(ValueError, match="two rows would be called 'uniform'"):
        run(root, tmp_path / "out", masks=Known(), segmenters={"uniform": again})
    assert not (tmp_path / "out").exists()


def test_what_has_no_weights_is_not_measured(tmp_path):
    missing = f"mask2former:{tmp_path / 'nowhere'}"
    found = run(
        bare_images(tmp_path / "set", PROMPTS),
        tmp_path / "out",
        masks=Known(),
        segmenters={"Mask2Former": missing},
    )
    lines = found.text.splitlines()
    (row,) = (line for line in lines if line.startswith("Mask2Former  "))
    assert "not measured" in row
    assert not any(digit in row.replace("Mask2Former", "") for digit in "0123456789")
    assert "Mask2Former: not measured: there is no folder" in " ".join(lines)
    with pytest.raises(SegmenterLoadError, match="there is no folder"):
        run(tmp_path / "set", tmp_path / "other", masks=missing)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("maskrcnn:x", "with one of mask2former, oneformer, clipseg"),
        ("mask2former", "is named as KIND:MODEL"),
        ("mask2former:x,threshold=1", "has no option 'threshold'; it has task"),
        ("clipseg:x,threshold=high", "could not convert"),
        ("clipseg:x,threshold=2", "lies between 0 and 1"),
        ("oneformer:x,task=all", "task must be one of panoptic"),
        ("mask2former:x,synonyms=nowhere.tsv", "No such file"),
    ],
)
def test_bad_names_of_segmenters(spec, says):
    with pytest.raises(SegmenterLoadError, match=says):
        load_segmenter(spec)


def texts(prompt, names=THINGS):
    return {
        name: [prompt[p] for p in found] for name, found in places_of_classes(prompt, names).items()
    }


def test_words_name_classes_by_name_plural_and_synonym():
    assert texts("Two Puppies chase a frisbee; people watch the man.") == {
        "person": ["people", "man"],
        "dog": ["Puppies"],
        "frisbee": ["frisbee"],
    }
    assert texts("a bus, buses, a box") == {"bus": ["bus", "buses"]}
    # The longest wins, over line breaks and capitals too.
    assert texts("a hot\n dog, a Teddy Bear and a stop sign") == {
        "stop sign": ["stop sign"],
        "hot dog": ["hot\n dog"],
        "teddy bear": ["Teddy Bear"],
    }
    # No parts of words.
    assert texts("a carpet, the catalogue, a doghouse's dog's cart") == {}
    assert texts("a hot-dog stand") == {"dog": ["dog"]}


def test_a_classes_own_name_is_its_own():
    assert texts("a sofa and a couch", ("couch", "sofa")) == {"couch": ["couch"], "sofa": ["sofa"]}
    assert classes_of("Motorbikes", VOC) == ["motorbike"]
    assert classes_of("motorcycle", VOC) == ["motorbike"]
    assert classes_of("quark", VOC) == []


def test_label_files_names_are_read():
    assert "potted plant" in spellings("potted_plant", {})
    assert {"sofa", "lounge", "lounges"} <= set(spellings("Sofa, lounge", {}))
    assert plain("sky-other-merged") == "sky"
    assert is_stuff("sky-other-merged")
    assert is_stuff("Sky")
    assert not any(is_stuff(name) for name in THINGS)
    assert (len(THINGS), len(set(THINGS)), len(STUFF), len(VOC)) == (80, 80, 53, 20)


def test_the_synonyms_are_of_classes_that_there_are():
    known = own_synonyms()
    assert set(known) <= {*THINGS, *VOC}
    for name, words in known.items():
        assert name not in words
        for word in words:
            assert len(classes_of(word, THINGS)) <= 1, word


def test_synonyms_of_ones_own(tmp_path):
    path = tmp_path / "mine.tsv"
    path.write_text("# mine\ndog\thound, pooch\n\ndog\tmutt\n")
    own = read_synonyms(path)
    assert own == {"dog": ("hound", "pooch", "mutt")}
    assert list(places_of_classes("a hound and a puppy", ["dog"], own)["dog"]) == [slice(2, 7)]
    path.write_text("dog hound\n")
    with pytest.raises(ValueError, match="line 1: "):
        read_synonyms(path)


words = st.lists(
    st.sampled_from(["dog", "dogs", "hot", "cat", "Man", "car", "t", ",", "'s"]), max_size=8
)


@given(words, st.sampled_from([" ", "  ", "\n"]))
def test_mentions_are_whole_words_that_do_not_overlap(chosen, blank):
    prompt = blank.join(chosen)
    found = [p for places_ in places_of_classes(prompt, THINGS).values() for p in places_]
    taken = [i for p in found for i in range(p.start, p.stop)]
    assert len(taken) == len(set(taken))
    for place in found:
        assert classes_of(prompt[place], THINGS)
        assert place in places(prompt, prompt[place])


def test_a_data_set_of_which_nothing_can_be_read(tmp_path):
    root = bare_images(tmp_path / "set", PROMPTS)
    for path in root.glob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"no item of the calibration split of .* can be read"):
        run(root, tmp_path / "out", masks=Known(), on_error="skip")
