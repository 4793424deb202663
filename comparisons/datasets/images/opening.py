"""Sources of a comparison's images: drawn for it, or of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wordlight.backends.backend import Backend
from wordlight.backends.prompted_data import DATA, SCENES, PromptedData, data_of
from wordlight.comparisons.datasets.dataset import Dataset, DatasetError, OnError
from wordlight.comparisons.datasets.images.dataset_images import (
    Annotator,
    DatasetImages,
    split_of_listing,
)
from wordlight.comparisons.datasets.images.generated_scenes import GeneratedScenes
from wordlight.comparisons.datasets.images.image_set import ImageSet
from wordlight.comparisons.datasets.opening import open_dataset, parse
from wordlight.comparisons.wording import counted


def open_images(
    data: str | Path | Dataset | None,
    backend: Backend,
    *,
    calibration: int,
    n: int,
    seed: int,
    on_error: OnError = "raise",
    segmenter: Annotator | None = None,
    redraw: bool = False,
) -> tuple[ImageSet, ImageSet]:
    """The calibration images and the test images.

    Args:
        data: ``"scenes"`` or ``"things"`` (images that the model draws of their prompts; with
            ``"scenes,test=SPLIT"`` those of another split are tested on), a data set, see
            ``open_dataset``, or None for the prompts that the model was trained on, ``data_of``.
        backend: the model.
        calibration, n: the number of images.
        seed: of their noise.
        on_error, segmenter, redraw: see ``DatasetImages``.

    Raises:
        ValueError: no such data set or split, or too few images in it.
    """
    if data is None:
        data = data_of(backend.model_id).name
    drawn = _drawn(data)
    if drawn is not None:
        asked, options = drawn
        if unknown := sorted(options.keys() - {"test"}):
            raise DatasetError(f"{asked.name} have no option {unknown[0]!r}; they have: test")
        if segmenter is not None or redraw or on_error != "raise":
            raise ValueError(
                f"{asked.name} are drawn anew, and their masks found by their own segmenter: there "
                "is nothing to redraw, to skip, or to segment"
            )
        split = options.get("test", "test")
        if split == "calibration":
            raise DatasetError("the calibration split can't be tested on")
        return (
            GeneratedScenes(backend, "calibration", calibration, seed, asked),
            GeneratedScenes(backend, split, n, seed, asked),
        )
    dataset = open_dataset(data, on_error=on_error)

    def images(split: str, count: int) -> DatasetImages:
        return DatasetImages(
            dataset,
            backend,
            split,
            count,
            seed,
            segmenter=segmenter,
            redraw=redraw,
            whole=calibration == 0,
        )

    return images("calibration", calibration), images("test", n)


def _drawn(data: str | Path | Dataset) -> tuple[PromptedData, dict[str, str]] | None:
    """The prompts that are drawn anew, and the options; None for a data set."""
    name, place, options = parse(data) if isinstance(data, str) else (None, "", {})
    return (DATA[place], options) if name is None and place in DATA else None


#: What asks for how many images of a split.
_FLAGS = {"calibration": "calibration", "test": "n"}


def open_data(
    data: str | Path | Dataset | None, on_error: OnError, counts: Mapping[str, int]
) -> str | Path | Dataset | None:
    """The data set, opened, so that what is wrong with it is said before a model is loaded; scenes
    and things as they are named, and None.

    Raises DatasetError where a data set has fewer images of a split than are asked for.
    """
    if data is None or _drawn(data) is not None:
        return data
    dataset = open_dataset(data, on_error=on_error)
    whole = counts["calibration"] == 0
    there = {split: len(split_of_listing(dataset.listing, split, whole=whole)) for split in counts}
    if all(there[split] >= count for split, count in counts.items()):
        return dataset
    short = [split for split, count in counts.items() if there[split] < count]
    asked = " and ".join(f"{_FLAGS[s]} {counts[s]} ({s} images)" for s in short)
    have = " and ".join(f"{count} for {split}" for split, count in there.items())
    advice = ", ".join(f"{_FLAGS[s]}={there[s]}" for s in short)
    command = " ".join(f"{'-n' if s == 'test' else '--calibration'} {there[s]}" for s in short)
    raise DatasetError(
        f"{dataset.root} has {counted(len(dataset.listing), 'image')} ({have}), too few for "
        f"{asked}: take "
        f"{advice} ({command})"
        + (
            ""
            if whole or all(there.values())
            else ", and more images: both splits need one at least"
        )
    )


def data_settings(tuning: ImageSet, test: ImageSet) -> Any:
    """Return a run's settings of its images, as plain data."""
    of_test = test.identity()
    return of_test if isinstance(of_test, str) else {"calibration": tuning.identity(), **of_test}


def describe(images: ImageSet, left_out: int = 0) -> str | None:
    """Return a table's name of a data set of which this many images were left out; None for images
    that the model draws of the scenes' test split."""
    if isinstance(images, DatasetImages):
        how = "seen" if images.origin == "as given" else images.origin
        more = f", {left_out} more left out" if left_out else ""
        return f"{images.dataset.title}{more}, {how}"
    if not isinstance(images, GeneratedScenes):
        return f"{images.split}, drawn"
    if images.split == "test":
        return None if images.data is SCENES else f"{images.data.name}, drawn"
    return f"{images.data.name} ({images.split}), drawn"


def headline_words(images: ImageSet) -> str:
    """Return the name of the words in a table's headline."""
    shapes = isinstance(images, GeneratedScenes) and images.data.noun == "shape-noun"
    if shapes:
        return "shape nouns in images of two or more objects"
    if isinstance(images, DatasetImages) and images.dataset.one_object:
        return "names of the one object that each image shows"
    return "objects' names in images of two or more objects"
