"""Rendered pictures of the prompts of ``scenes``, with exact masks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wordlight.backends.scenes.grammar import DATA_VERSION, SPLITS
from wordlight.backends.scenes.render import rendered
from wordlight.comparisons.datasets.dataset import (
    AnnotatedImage,
    Annotation,
    Dataset,
    Listed,
    OnError,
)
from wordlight.comparisons.datasets.scenes import category_of

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

    def __init__(self, *, test: str = "test", on_error: OnError = "raise") -> None:
        if test not in SPLITS or test == "calibration":
            others = ", ".join(split for split in SPLITS if split != "calibration")
            raise ValueError(f"the test split must be one of {others}, not {test!r}")
        super().__init__(Path("."), on_error=on_error)
        self.root = Path(self.format)
        self.test = test

    @property
    def title(self) -> str:
        return f"{self.format} ({self.test})"

    def _list(self) -> Iterable[Listed]:
        for split, scenes_split in (("calibration", "calibration"), ("test", self.test)):
            for index in range(COUNT):
                name = f"rendered-{scenes_split}-{index:04d}"
                yield Listed(name, name, split)

    def _read(self, sample: str) -> AnnotatedImage:
        split, _, index = sample.removeprefix("rendered-").rpartition("-")
        drawn = rendered(split, int(index))
        masks = drawn.word_masks()
        annotations = tuple(
            Annotation(slice(word.start, word.stop), masks[place], category)
            for place, word in enumerate(drawn.scene.words)
            if (category := category_of(word)) is not None and masks[place].any()
        )
        return AnnotatedImage(sample, drawn.scene.prompt, drawn.image, annotations)

    def _record(self, sample: str) -> Any:
        return DATA_VERSION

    def _files(self, sample: str) -> Iterable[Path]:
        return ()
