"""The formats of data sets pass ``check_dataset``, which finds what is wrong with others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wordlight.comparisons.datasets import open_dataset
from wordlight.comparisons.datasets.dataset import (
    AnnotatedImage,
    Annotation,
    Dataset,
    DatasetError,
    ListedItem,
)
from wordlight.comparisons.datasets.opening import formats
from wordlight.comparisons.datasets.testing import check_dataset


class Two(Dataset):
    """Two items of one image."""

    format = "two"

    def __init__(self):
        super().__init__(Path("."))

    def _list(self):
        return [ListedItem("first", "a"), ListedItem("second", "b")]

    def _read(self, sample):
        image = np.zeros((4, 6, 3), np.uint8)
        mask = np.eye(4, 6, dtype=bool)
        return AnnotatedImage(sample, "a red dog", image, (Annotation("dog", mask),))

    def _files(self, sample):
        return ()


def test_rendered_pictures_and_a_data_set_of_ones_own_pass() -> None:
    check_dataset(open_dataset("rendered-scenes"), n=3)
    check_dataset(open_dataset("rendered-things,test=look-alikes"), n=3)
    check_dataset(Two())


def changed(**methods):
    return type("Changed", (Two,), methods)()


def read(image=None, prompt="a red dog", place="dog"):
    image = np.zeros((4, 6, 3), np.uint8) if image is None else image
    mask = np.eye(*image.shape[:2], dtype=bool)
    return lambda self, sample: AnnotatedImage(sample, prompt, image, (Annotation(place, mask),))


@pytest.mark.parametrize(
    ("methods", "says"),
    [
        ({"format": "Two"}, "must be in kebab-case"),
        ({"_list": lambda self: [ListedItem("first", "a")]}, "two items or more"),
        (
            {"_list": lambda self: [ListedItem("a", "a", "train"), ListedItem("b", "b", "train")]},
            "'calibration', 'test' or None",
        ),
        (
            {"_list": lambda self: [ListedItem("a", "a", "test"), ListedItem("b", "b")]},
            "others don't",
        ),
        ({"_read": read(np.zeros((4, 6, 4), np.uint8))}, r"\(height, width, 3\) uint8"),
        ({"_read": read(place="cat")}, "an annotation's place isn't in the prompt"),
        ({"_read": lambda self, sample: read()(self, "x")}, "first is read as x"),
        ({"identity": lambda self, samples: {"format": "two"}}, "fewer items have the same"),
    ],
)
def test_what_is_wrong_is_found(methods, says) -> None:
    with pytest.raises(AssertionError, match=says):
        check_dataset(changed(**methods))


def test_formats_are_known_by_name_and_told_by_their_own_layout(tmp_path) -> None:
    assert set(formats()) == {
        "coco", "coco-gen", "folder", "imagenet-segmentation", "rendered-scenes",
        "rendered-things", "voc",
    }  # fmt: skip
    with pytest.raises(DatasetError, match="no data set format 'coc'; did you mean coco"):
        open_dataset(f"coc:{tmp_path}")
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "annotations").mkdir()
    with pytest.raises(DatasetError, match="could be coco or voc: say its format"):
        open_dataset(tmp_path)
