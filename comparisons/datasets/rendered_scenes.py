"""Rendered pictures of the prompts of ``scenes`` and ``things``, with exact masks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from wordlight.backends.prompted_data import SCENES, THINGS, PromptedData
from wordlight.comparisons.datasets.dataset import (
    AnnotatedImage,
    Annotation,
    Dataset,
    ListedItem,
    OnError,
)
from wordlight.comparisons.datasets.scenes import described

#: How many pictures of each split there are.
COUNT = 1000


class RenderedScenes(Dataset):
    """The renderer's images of the calibration split's prompts and of the test split's.

    A model sees them by ``invert``. They never share a table with images that a model drew.

    Args:
        test: the split that is tested on.
    """

    format = "rendered-scenes"
    placeless = True
    data: ClassVar[PromptedData] = SCENES

    def __init__(self, *, test: str = "test", on_error: OnError = "raise") -> None:
        splits = self.data.splits
        if test not in splits or test == "calibration":
            others = ", ".join(split for split in splits if split != "calibration")
            raise ValueError(f"the test split must be one of {others}, not {test!r}")
        super().__init__(Path("."), on_error=on_error)
        self.root = Path(self.format)
        self.test = test

    @property
    def title(self) -> str:
        return f"{self.format} ({self.test})"

    def _list(self) -> Iterable[ListedItem]:
        for split, scenes_split in (("calibration", "calibration"), ("test", self.test)):
            for index in range(COUNT):
                name = f"rendered-{scenes_split}-{index:04d}"
                yield ListedItem(name, name, split)

    def _read(self, sample: str) -> AnnotatedImage:
        split, _, index = sample.removeprefix("rendered-").rpartition("-")
        drawn = self.data.rendered(split, int(index))
        masks = drawn.word_masks()
        annotations = tuple(
            Annotation(place, masks[index], category)
            for index, place, category in described(drawn.scene.words, self.data)
            if masks[index].any()
        )
        return AnnotatedImage(sample, drawn.scene.prompt, drawn.image, annotations)

    def _record(self, sample: str) -> Any:
        return self.data.version

    def _files(self, sample: str) -> Iterable[Path]:
        return ()


class RenderedThings(RenderedScenes):
    """Rendered pictures of ``things``, of real nouns, for any model that takes an image.

    Args:
        test: the split that is tested on: ``"test"``, ``"look-alikes"``, ``"unseen-pairs"`` or
            ``"unseen-style"`` among others.
    """

    format = "rendered-things"
    data: ClassVar[PromptedData] = THINGS
