"""A data set's images as a model sees them, kept on disk once they were made ready."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wordlight.backends.arrays_file import FileFormatError
from wordlight.backends.backend import Backend
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.datasets.dataset import (
    AnnotatedImage,
    Annotation,
    Dataset,
    DatasetError,
    ListedItem,
)
from wordlight.comparisons.datasets.images.image_set import ImageSet, check_numbers
from wordlight.comparisons.datasets.item import Category, DatasetItem
from wordlight.comparisons.datasets.judged import judged_item, resized_image
from wordlight.comparisons.store.cells import DamagedFileError
from wordlight.comparisons.wording import counted

#: The share of the items that thresholds are chosen on, where a data set has no splits of its own.
CALIBRATION_SHARE = 0.25
#: Grey levels a pixel by which an image that is drawn again may differ: other devices round
#: differently; another model or seed is further off by far.
_SAME_IMAGE = 1.0


class Annotator(Protocol):
    """Gives masks to images that have none: a supervised segmenter."""

    @property
    def identity(self) -> str:
        """A text that differs where its masks do."""
        ...

    def annotate(
        self, prompt: str, image: npt.NDArray[np.uint8]
    ) -> tuple[list[Annotation], list[str]]:
        """The words of a prompt that it finds in the image, and those that it doesn't."""
        ...


class DatasetImages(ImageSet):
    """The first ``n`` items of a data set's split, each with a trajectory and scored words.

    A given image's trajectory is its inversion, at the model's own size; a prompt without an image
    is drawn. Splits are the data set's own, or a quarter of its items for calibration, chosen by a
    hash of what must not be parted, so that more images leave the first ones as they are.

    Args:
        dataset: the source of the items.
        backend: the model.
        split: ``"calibration"`` or ``"test"``.
        n: the number of items; malformed ones that are skipped count among them.
        seed: with the item's name it gives the seed of its noise.
        segmenter: makes the masks of images that have none.
        redraw: draw images again from their prompts and seeds, for maps of the very drawing;
            they must come out as they are in the data set.
        whole: none is for calibration, where the data set has no splits of its own.

    Raises:
        ValueError: too few items, a bad number, images beside prompts alone.
    """

    def __init__(
        self,
        dataset: Dataset,
        backend: Backend,
        split: str,
        n: int,
        seed: int = 0,
        *,
        segmenter: Annotator | None = None,
        redraw: bool = False,
        whole: bool = False,
    ) -> None:
        check_numbers(split, n, seed, least=0 if whole and split == "calibration" else 1)
        self.dataset = dataset
        self.backend = backend
        self.split = split
        self.seed = seed
        self.segmenter = segmenter
        self.redraw = redraw
        if not redraw:
            _check_one_kind(dataset)
        there = split_of_listing(dataset.listing, split, whole=whole)
        if len(there) < n:
            raise ValueError(
                f"the {split} split of {dataset.root} has {counted(len(there), 'image')} of "
                f"{len(dataset.listing)}, not {n}: ask for fewer"
            )
        self.listed = there[:n]

    @property
    def n(self) -> int:
        """The number of items."""
        return len(self.listed)

    @cached_property
    def samples(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(one.sample for one in self.listed)

    @cached_property
    def prompts(self) -> tuple[str, ...]:
        """Their prompts, of those that can be read."""
        read = (self.dataset.attempt(sample) for sample in self.samples)
        return tuple(item.prompt for item in read if item is not None)

    @cached_property
    def first_batch(self) -> tuple[Trajectory, ...]:
        """The first item that can be read, made ready and not yet kept."""
        for sample in self.samples:
            item = self.dataset.attempt(sample)
            if item is not None:
                return (self._trajectory(item),)
        raise DatasetError(f"no item of the {self.split} split of {self.dataset.root} can be read")

    @cached_property
    def _of_files(self) -> dict[str, Any]:
        # Every file is read for it: once a process.
        return self.dataset.identity(self.samples)

    @property
    def origin(self) -> str:
        """``"as given"``, ``"drawn"`` where there are prompts alone, or ``"drawn again"``."""
        if not all(one.given for one in self.dataset.listing):
            return "drawn"
        return "drawn again" if self.redraw else "as given"

    @property
    def given(self) -> bool:
        return self.origin == "as given"

    def identity(self) -> dict[str, Any]:
        """All that tells these images from others, as plain data."""
        return {
            **self._of_files,
            "masks": self.segmenter.identity if self.segmenter else "the data set's",
            "images": self.origin,
            "on-error": self.dataset.on_error,
        }

    def noise_seed(self, sample: str) -> int:
        """The seed of an item's noise, where the data set has none."""
        key = int.from_bytes(hashlib.sha256(sample.encode()).digest()[:4], "big")
        return int(np.random.SeedSequence((self.seed, key)).generate_state(1)[0])

    def may_leave_out(self, sample: str) -> bool:
        if self.dataset.on_error == "raise":
            return False
        annotated = self.dataset.attempt(sample)
        if annotated is None or (annotated.annotations is None and self.segmenter is None):
            return True
        try:
            self._check_prompt(annotated)
        except DatasetError:
            return True
        # Only drawing it tells whether it comes out as it is.
        return self.redraw and annotated.image is not None

    @property
    def left_out(self) -> Mapping[str, str]:
        return self.dataset.skipped

    def leave_out(self, found: Mapping[str, str]) -> None:
        for sample, reason in found.items():
            self.dataset.leave_out(sample, reason)

    def report_left_out(self) -> None:
        self.dataset.report_skipped()

    def make(self, start: int, folder: Path) -> None:
        path = self.path(start, folder)
        annotated = None if path.exists() else self.dataset.attempt(self.samples[start])
        if annotated is None:
            return
        try:
            self._trajectory(annotated).save(path, self.label(start))
        except DatasetError as error:
            self.dataset.leave_out(annotated.sample, str(error))

    def item(self, index: int, folder: Path) -> DatasetItem | None:
        sample, path = self.samples[index], self.path(index, folder)
        annotated = self.dataset.attempt(sample)
        if annotated is None or sample in self.dataset.skipped:
            return None
        try:
            trajectory = Trajectory.load(path, self.label(index))
        except FileFormatError as error:
            raise DamagedFileError(path, str(error)) from None
        try:
            if trajectory.prompt != annotated.prompt:
                raise ValueError(
                    f"{path} is of {trajectory.prompt!r}, and {sample} of {annotated.prompt!r}"
                )
            annotations, missed = self._annotations(annotated, trajectory)
            item = judged_item(
                sample, self.split, trajectory, annotations, one_object=self.dataset.one_object
            )
        except DatasetError as error:
            self.dataset.leave_out(sample, str(error))
            return None
        not_found: list[Category] = ["object"] * len(missed)
        return replace(item, dropped=(*item.dropped, *not_found))

    def _annotations(
        self, annotated: AnnotatedImage, trajectory: Trajectory
    ) -> tuple[tuple[Annotation, ...], list[str]]:
        if annotated.annotations is not None:
            return annotated.annotations, []
        if self.segmenter is None:
            raise DatasetError(
                f"{annotated.sample} has no mask, and no segmenter was named to make them"
            )
        found, missed = self.segmenter.annotate(trajectory.prompt, trajectory.image)
        named = (self._where_named(trajectory.prompt, one) for one in found)
        return tuple(one for one in named if one is not None), missed

    def _where_named(self, prompt: str, one: Annotation) -> Annotation | None:
        """A segmenter's word at the places that name what its mask shows, None without any."""
        places = one.place if isinstance(one.place, list) else [one.place]
        spans = [place for place in places if isinstance(place, slice)]
        if len(spans) < len(places):
            return one  # An annotator of one's own may say words otherwise.
        named = self.dataset.named_in(prompt, spans)
        if not named:
            return None
        return replace(one, place=named[0] if len(named) == 1 else list(named))

    def _check_prompt(self, annotated: AnnotatedImage) -> None:
        try:
            self.backend.tokenize(annotated.prompt)
        except ValueError as error:
            raise DatasetError(f"{annotated.sample}: {error}") from None

    def _trajectory(self, annotated: AnnotatedImage) -> Trajectory:
        sample, prompt = annotated.sample, annotated.prompt
        seed = self.noise_seed(sample) if annotated.seed is None else annotated.seed
        self._check_prompt(annotated)
        if annotated.image is None:
            return self.backend.sample(prompt, seed=seed)
        facts = self.backend.sampling
        image = resized_image(annotated.image, (facts.height, facts.width))
        if not self.redraw:
            (inverted,) = self.backend.invert([image], [prompt], seed=seed)
            return inverted
        if annotated.seed is None:
            raise DatasetError(f"{sample} has no seed to draw it again from")
        drawn = self.backend.sample(prompt, seed=seed)
        difference = float(np.abs(drawn.image.astype(np.float64) - image).mean())
        if difference > _SAME_IMAGE:
            raise DatasetError(
                f"{sample}: {self.backend.model_id} draws another image of its prompt and seed "
                f"({difference:.1f} grey levels a pixel): it was made by another model, or another "
                "way; score its inversion instead"
            )
        return drawn


def split_of_listing(
    listing: tuple[ListedItem, ...], split: str, *, whole: bool = False
) -> tuple[ListedItem, ...]:
    """The items of a split, in the order in which they are taken; with ``whole`` every item of a
    data set without splits of its own is of the test split.

    Raises DatasetError where some items say their split and others don't.
    """
    said = [one.split is not None for one in listing]
    if all(said):
        return tuple(one for one in listing if one.split == split)
    if any(said):
        silent = next(one.sample for one in listing if one.split is None)
        raise DatasetError(f"some items say their split, and {silent} doesn't")
    ranked = sorted(listing, key=lambda one: (_rank(one.group), one.sample))
    wanted = 0 if whole else max(1, round(CALIBRATION_SHARE * len(ranked)))
    # The groups that the first quarter of items begins.
    chosen = {one.group for one in ranked[:wanted]}
    return tuple(one for one in ranked if (one.group in chosen) == (split == "calibration"))


def _check_one_kind(dataset: Dataset) -> None:
    """Images that a model only sees and images that it drew never share a table."""
    drawn = [one.sample for one in dataset.listing if not one.given]
    given = len(dataset.listing) - len(drawn)
    if drawn and given:
        raise DatasetError(
            f"{dataset.root} has {counted(given, 'item')} with an image and {len(drawn)} with a "
            f"prompt alone, "
            f"such as {drawn[0]}: given and drawn images never share a table; give an image to all "
            "or to none of them, as two data sets, or have all of them drawn, with redraw"
        )


def _rank(group: str) -> str:
    return hashlib.sha256(group.encode()).hexdigest()
