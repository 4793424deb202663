"""Conformance of data sets: what everything that reads them relies on."""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np

from wordlight.attribution.testing.model import ToyModel
from wordlight.attribution.words import PromptWords
from wordlight.backends.tokens import PromptTooLongError
from wordlight.comparisons.datasets.dataset import AnnotatedImage, Dataset, ListedItem

#: The splits that a data set can have of its own.
_SPLITS = (None, "calibration", "test")


def check_dataset(dataset: Dataset, *, n: int = 20) -> None:
    """Check that a data set is one: in the manner of scikit-learn's ``check_estimator``.

    Args:
        dataset: an opened one, with two items or more.
        n: the number of its items that are read.

    Raises:
        AssertionError: the first thing that is wrong, and what would be right.
    """
    _describes_itself(dataset)
    listing = dataset.listing
    _expect(len(dataset) == len(listing), "its length isn't that of its listing")
    splits = {one.split for one in listing}
    _expect(splits <= set(_SPLITS), f"its splits are {splits}: 'calibration', 'test' or None")
    _expect(None not in splits or len(splits) == 1, "some items say their split, others don't")
    for one in listing[:n]:
        _reads(dataset, one)
    _identifies(dataset, [one.sample for one in listing[:n]])
    try:
        dataset.read("no such item")
    except KeyError:
        pass
    else:
        raise AssertionError("an item that isn't there must raise KeyError")


def _describes_itself(dataset: Dataset) -> None:
    name = getattr(dataset, "format", None)
    _expect(
        isinstance(name, str) and re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) is not None,
        f"its format is called {name!r}: it must be in kebab-case, such as 'coco-gen'",
    )
    _expect(bool(dataset.title.strip()), "its title is empty")
    counts = Counter(one.sample for one in dataset.listing)
    _expect(max(counts.values()) == 1, "two items have one name")
    _expect(len(counts) > 1, "two items or more are needed to check it")


def _reads(dataset: Dataset, listed: ListedItem) -> None:
    sample = listed.sample
    item, again = dataset.read(sample), dataset.read(sample)
    _expect(isinstance(item, AnnotatedImage), f"{sample} is read as {type(item).__name__}")
    _expect(item.sample == sample, f"{sample} is read as {item.sample}")
    _expect(
        (item.image is not None) == listed.given,
        f"{sample} is listed as {'given' if listed.given else 'a prompt alone'}, and isn't",
    )
    if item.image is not None:
        image = item.image
        _expect(
            image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3,
            f"the image of {sample} is {image.shape} {image.dtype}, and should be (height, width, "
            "3) uint8",
        )
        same = again.image is not None and np.array_equal(image, again.image)
        _expect(same, f"{sample} is another image when read again")
    _places(item)


def _places(item: AnnotatedImage) -> None:
    try:
        words = PromptWords.of(ToyModel().tokenize(item.prompt))
    except PromptTooLongError:
        return
    for one in item.annotations or ():
        _expect(one.mask.dtype == np.bool_, f"a mask of {item.sample} isn't boolean")
        try:
            words.find(one.place)
        except (KeyError, ValueError) as error:
            raise AssertionError(
                f"{item.sample}: an annotation's place isn't in the prompt ({error})"
            ) from None


def _identifies(dataset: Dataset, samples: list[str]) -> None:
    whole = dataset.identity(samples)
    _expect(whole == json.loads(json.dumps(whole)), f"its identity {whole!r} is no plain data")
    _expect(whole == dataset.identity(samples), "its identity is another when asked again")
    _expect(whole != dataset.identity(samples[:-1]), "fewer items have the same identity")


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)
