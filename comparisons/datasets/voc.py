"""Pascal VOC's folders: photographs, palette images of classes, lists of names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from wordlight.backends.segmenters.classes import VOC
from wordlight.comparisons.datasets.dataset import (
    AnnotatedImage,
    Annotation,
    Dataset,
    DatasetError,
    ListedItem,
    OnError,
)
from wordlight.comparisons.datasets.files import inside, read_image, read_labels, read_text
from wordlight.comparisons.datasets.prompts import TEMPLATE, check_template, prompt_of

IMAGES, LABELS, SETS = "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"
#: Borders and what is too difficult: of no class, and in no mask.
VOID = 255
#: In bytes; VOC's longest list has a thousandth of it.
_LONGEST_LIST = 20_000_000


class Voc(Dataset):
    """``JPEGImages/*.jpg``, ``SegmentationClass/*.png`` and ``ImageSets/Segmentation/<list>.txt``.

    A pixel's number is its class, 0 the background, 255 void: void pixels are in no class's mask.
    There are no captions, so the prompt names the classes. Everingham et al., The Pascal Visual
    Object Classes Challenge, 2010.

    Args:
        root: the folder of these folders, such as ``VOCdevkit/VOC2012``.
        subset: the list to read; all segmented images where it is empty and there is none.
        prompt: a template, with ``{}`` for the classes.
        classes: a text file with the name of a class a line, from number 1 on, for data sets of
            this layout with other classes than VOC's 20.
    """

    format = "voc"

    def __init__(
        self,
        root: str | Path,
        *,
        subset: str = "val",
        prompt: str = TEMPLATE,
        classes: str = "",
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(root, on_error=on_error)
        self.subset = subset
        self.prompt = check_template(prompt)
        self.classes = tuple(VOC)
        if classes:
            lines = read_text(Path(classes)).splitlines()
            self.classes = tuple(line.strip() for line in lines)
            if not all(self.classes):
                raise DatasetError(f"{classes} should name a class a line")

    @classmethod
    def recognises(cls, place: Path) -> bool:
        return (place / IMAGES).is_dir()

    def _list(self) -> Iterable[ListedItem]:
        for folder in (IMAGES, LABELS):
            if not (self.root / folder).is_dir():
                raise DatasetError(f"{self.root} has no folder {folder}")
        for name in self._names():
            yield ListedItem(name, name)

    def _names(self) -> list[str]:
        if not self.subset:
            return sorted(path.stem for path in (self.root / LABELS).glob("*.png"))
        listed = inside(self.root, f"{SETS}/{self.subset}.txt")
        if not listed.is_file():
            raise DatasetError(f"there is no list {listed}; name another with subset=NAME")
        lines = read_text(listed, _LONGEST_LIST).splitlines()
        return [line.strip() for line in lines if line.strip()]

    def _read(self, sample: str) -> AnnotatedImage:
        image, label_file = self._files(sample)
        labels = read_labels(label_file)
        numbers = [int(number) for number in np.unique(labels) if number not in (0, VOID)]
        if unknown := [number for number in numbers if number > len(self.classes)]:
            raise DatasetError(
                f"{label_file} has the number {unknown[0]}, and there are {len(self.classes)} "
                "classes"
            )
        if not numbers:
            raise DatasetError(f"{label_file} shows no class: there is no word to score")
        prompt, spans = prompt_of(self.prompt, [self.classes[number - 1] for number in numbers])
        annotations = tuple(
            Annotation(span, labels == number) for span, number in zip(spans, numbers, strict=True)
        )
        return AnnotatedImage(sample, prompt, read_image(image), annotations)

    def _files(self, sample: str) -> tuple[Path, Path]:
        return (
            inside(self.root, f"{IMAGES}/{sample}.jpg"),
            inside(self.root, f"{LABELS}/{sample}.png"),
        )
