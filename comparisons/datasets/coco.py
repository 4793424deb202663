"""COCO: photographs, captions, and masks of things (instances), of stuff, or of both (panoptic)."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from wordlight.attribution.words import WordKey
from wordlight.backends.segmenters.classes import plain
from wordlight.backends.segmenters.matching import places_of_classes
from wordlight.comparisons.datasets.dataset import (
    AnnotatedImage,
    Annotation,
    Dataset,
    DatasetError,
    ListedItem,
    OnError,
)
from wordlight.comparisons.datasets.files import inside, read_image, read_json
from wordlight.comparisons.datasets.item import Category, Mask
from wordlight.comparisons.datasets.nouns import Nouns

KINDS = ("instances", "stuff", "panoptic")

Record = dict[str, Any]


class Coco(Dataset):
    """``annotations/captions_<subset>.json``, masks beside it, and images in ``<subset>/``.

    Of an image's captions the one that names most of its classes is its prompt, the first of equal
    ones; images of which no caption names a class aren't listed. A class's mask is of all its
    objects, crowds too. Words name classes by name, plural and synonym.
    Lin et al., arXiv 1405.0312; Kirillov et al., Panoptic Segmentation, arXiv 1801.00868.

    Args:
        root: the folder.
        subset: ``"val2017"``, ...; need not be said where there is only one.
        kind: ``"instances"``, ``"stuff"`` or ``"panoptic"``, whose PNG files lie in
            ``annotations/panoptic_<subset>/``.
        tags, spacy: the source of captions' parts of speech (see ``Nouns``). A class is then
            named by nouns alone: no orange by the colour of "an orange cat".
    """

    format = "coco"

    def __init__(
        self,
        root: str | Path,
        *,
        subset: str = "",
        kind: str = "instances",
        tags: str = "",
        spacy: str = "",
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(root, on_error=on_error)
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
        self.kind = kind
        self._nouns = Nouns(tags, spacy)
        self.tags, self.spacy = tags, self._nouns.release
        self.subset = subset or self._only_subset()
        self._prompts: dict[str, tuple[int, str]] = {}

    def _only_subset(self) -> str:
        found = sorted((self.root / "annotations").glob("captions_*.json"))
        if len(found) != 1:
            names = ", ".join(path.stem.removeprefix("captions_") for path in found) or "none"
            raise DatasetError(
                f"say which subset of {self.root} is meant, as subset=NAME: there are {names}"
            )
        return found[0].stem.removeprefix("captions_")

    @cached_property
    def _images(self) -> dict[int, Record]:
        return dict(self._numbered("images", "id"))

    @cached_property
    def _masks_file(self) -> Record:
        return self._json(f"{self.kind}_{self.subset}.json")

    @cached_property
    def _classes(self) -> dict[int, tuple[str, Category]]:
        """The classes' names in plain words, and whether they are things."""
        classes: dict[int, tuple[str, Category]] = {}
        for number, one in self._numbered("categories", "id"):
            name = self._attempt(f"category {number}", lambda one=one: self._name(one))  # type: ignore[misc]
            thing = one.get("isthing", 0 if self.kind == "stuff" else 1)
            if name is not None and name != "other":
                classes[number] = (plain(name), "object" if thing else "stuff")
        return classes

    def _name(self, category: Record) -> str:
        name = category.get("name")
        if not isinstance(name, str) or not name:
            raise DatasetError(f"{self.root}: a category without a name: {category!r}"[:300])
        return name

    @cached_property
    def _annotations(self) -> dict[int, list[Record]]:
        by_image: dict[int, list[Record]] = defaultdict(list)
        for number, one in self._numbered("annotations", "image_id"):
            by_image[number].append(one)
        return dict(by_image)

    def _numbered(self, table: str, key: str) -> Iterator[tuple[int, Record]]:
        """The records of a table by a number of theirs; one without it is malformed by itself."""
        for position, one in enumerate(self._table(self._masks_file, table)):
            what = f"{table} {position}"
            number = self._attempt(what, lambda one=one: _number(one, key))  # type: ignore[misc]
            if number is not None:
                yield number, one

    def _json(self, name: str) -> Record:
        found = read_json(inside(self.root, f"annotations/{name}"))
        if not isinstance(found, dict):
            raise DatasetError(f"{self.root}/annotations/{name} should hold an object")
        return found

    def _table(self, found: Record, key: str) -> list[Record]:
        table = found.get(key)
        if not isinstance(table, list) or not all(isinstance(one, dict) for one in table):
            raise DatasetError(f"{self.root}: the annotations have no list of {key}")
        return table

    @classmethod
    def recognises(cls, place: Path) -> bool:
        return (place / "annotations").is_dir()

    def _list(self) -> Iterable[ListedItem]:
        captions: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for one in self._table(self._json(f"captions_{self.subset}.json"), "annotations"):
            caption = self._attempt(f"caption {one.get('id')}", lambda one=one: _caption(one))  # type: ignore[misc]
            if caption is not None:
                number, which, text = caption
                captions[number].append((which, text))
        # Read once and for all: what is wrong with a table isn't every image's fault.
        _ = self._classes, self._annotations
        for number in sorted(self._images):
            listed = self._attempt(
                f"image {number}",
                lambda number=number: self._listed(number, sorted(captions.get(number, []))),  # type: ignore[misc]
            )
            if listed is not None:
                yield listed

    def _listed(self, number: int, captions: Iterable[tuple[int, str]]) -> ListedItem | None:
        names = self._names_of(number)
        best, most = "", 0
        for _, text in captions:
            if (count := len(self._named(text, names))) > most:
                best, most = text, count
        if not most:
            return None
        sample = Path(str(self._images[number].get("file_name", ""))).stem
        self._prompts[sample] = (number, best)
        return ListedItem(sample, sample)

    def _named(self, caption: str, names: Iterable[str]) -> dict[str, tuple[slice, ...]]:
        """The classes that a caption names, with the places where it does."""
        found = places_of_classes(caption, names)
        nouns = {
            name: self._nouns.places_of_nouns(caption, places) for name, places in found.items()
        }
        return {name: places for name, places in nouns.items() if places}

    def _names_of(self, number: int) -> dict[str, list[int]]:
        """The classes that an image shows, each with the numbers of its categories."""
        names: dict[str, list[int]] = {}
        for one in self._annotations.get(number, []):
            for part in _segments(one) if self.kind == "panoptic" else [one]:
                category = _number(part, "category_id")
                if category in self._classes:
                    numbers = names.setdefault(self._classes[category][0], [])
                    if category not in numbers:
                        numbers.append(category)
        return names

    def _read(self, sample: str) -> AnnotatedImage:
        number, prompt = self._prompts[sample]
        image = read_image(self._image_path(number))
        self._check_size(number, image.shape[:2])
        names = self._names_of(number)
        by_category = self._category_masks(number, (image.shape[0], image.shape[1]))
        annotations = []
        for name, found in self._named(prompt, names).items():
            masks = [by_category[category] for category in names[name]]
            place: WordKey = found[0] if len(found) == 1 else list(found)
            category: Category = self._classes[names[name][0]][1]
            annotations.append(Annotation(place, np.logical_or.reduce(masks), category))
        return AnnotatedImage(sample, prompt, image, tuple(annotations))

    def _check_size(self, number: int, size: tuple[int, ...]) -> None:
        """Polygons don't say which size of the image they are of, the list of images does."""
        told = tuple(
            self._images[number].get(key, side)
            for key, side in zip(("height", "width"), size, strict=True)
        )
        if told != size:
            path = self._image_path(number)
            raise DatasetError(
                f"{path} is {size[0]}x{size[1]}, and its annotations are of {told[0]}x{told[1]} "
                "(height x width)"
            )

    def _category_masks(self, number: int, size: tuple[int, int]) -> dict[int, Mask]:
        if self.kind == "panoptic":
            return self._panoptic_masks(number)
        masks: dict[int, Mask] = {}
        for one in self._annotations[number]:
            mask = _decoded(one, size)
            category = _number(one, "category_id")
            masks[category] = masks[category] | mask if category in masks else mask
        return masks

    def _panoptic_masks(self, number: int) -> dict[int, Mask]:
        masks: dict[int, Mask] = {}
        for one in self._annotations[number]:
            path = self._panoptic_path(one)
            colours = read_image(path).astype(np.int32)
            ids = colours[..., 0] + 256 * colours[..., 1] + 256 * 256 * colours[..., 2]
            for part in _segments(one):
                mask = ids == _number(part, "id")
                category = _number(part, "category_id")
                masks[category] = masks[category] | mask if category in masks else mask
        return masks

    def _panoptic_path(self, one: Record) -> Path:
        return inside(self.root, f"annotations/panoptic_{self.subset}/{one.get('file_name')}")

    def _image_path(self, number: int) -> Path:
        return inside(self.root, f"{self.subset}/{self._images[number].get('file_name')}")

    def _files(self, sample: str) -> Iterable[Path]:
        number, _ = self._prompts[sample]
        panoptic = self._annotations[number] if self.kind == "panoptic" else []
        return (
            self._image_path(number),
            *(self._panoptic_path(one) for one in panoptic),
            inside(self.root, f"annotations/{self.kind}_{self.subset}.json"),
            inside(self.root, f"annotations/captions_{self.subset}.json"),
            *self._nouns.files,
        )


def _caption(one: Record) -> tuple[int, int, str]:
    """The number of its image, its own, and its text."""
    text = one.get("caption")
    if not isinstance(text, str) or not text.strip():
        raise DatasetError(f"caption {one.get('id')} has no text")
    return _number(one, "image_id"), _number(one, "id"), " ".join(text.split())


def _segments(one: Record) -> list[Record]:
    found = one.get("segments_info")
    if not isinstance(found, list) or not all(isinstance(part, dict) for part in found):
        raise DatasetError(f"the annotation of image {one.get('image_id')} has no segments_info")
    return found


def _number(one: Record, key: str) -> int:
    value = one.get(key)
    if type(value) is not int:
        # Outlines are long, and would crowd out what tells the record from others.
        told = {name: one[name] for name in one if name not in ("segmentation", "segments_info")}
        raise DatasetError(f"{key} should be a whole number, not {value!r}, in {told!r}"[:300])
    return value


def _decoded(one: Record, size: tuple[int, int]) -> Mask:
    """A segmentation as a mask: polygons, or runs, compressed or not."""
    where = f"annotation {one.get('id')}"
    found = one.get("segmentation")
    if not isinstance(found, dict):
        return _of_polygons(where, found, size)
    if found.get("size") != [*size]:
        raise DatasetError(f"{where}: its mask is {found.get('size')}, and the image is {[*size]}")
    counts = found.get("counts")
    if isinstance(counts, str):
        counts = _runs(where, counts)
    if (
        not isinstance(counts, list)
        or not all(type(run) is int and run >= 0 for run in counts)
        or sum(counts) != size[0] * size[1]
    ):
        raise DatasetError(
            f"{where}: its runs don't add up to the image's pixels (cut short, or another image's)"
        )
    values = np.arange(len(counts)) % 2 == 1
    # Column by column.
    mask: Mask = np.repeat(values, counts).reshape(size[::-1]).T
    return mask


def _runs(where: str, text: str) -> list[int]:
    """The lengths of runs from COCO's text: five bits a character, from the lowest on, with a bit
    that says that more follow, signed; from the third on as differences to the one before last.

    As in pycocotools' ``rleFrString``, which takes any text.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise DatasetError(f"{where}: its runs aren't what COCO writes")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise DatasetError(f"{where}: its runs were cut short")
    return runs


#: How far outside of an image its outlines may lie, in its sizes; annotators overshoot by pixels.
_OUTSIDE = 1.0
#: In pixels, of all outlines of an object together: more would take gigabytes.
_LONGEST_OUTLINE = 1_000_000


def _of_polygons(where: str, found: Any, size: tuple[int, int]) -> Mask:
    try:
        from pycocotools import mask as coco_mask
    except ImportError:
        raise DatasetError("COCO's masks need pycocotools: pip install 'wordlight[coco]'") from None
    if (
        not isinstance(found, list)
        or not found
        or not all(
            isinstance(polygon, list)
            and len(polygon) >= 6
            and len(polygon) % 2 == 0
            and all(isinstance(place, int | float) for place in polygon)
            for polygon in found
        )
    ):
        raise DatasetError(f"{where}: segmentation should be polygons or runs")
    _check_outlines(where, found, size)
    try:
        with warnings.catch_warnings():
            # pycocotools' arrays don't know numpy 2's `copy` yet.
            warnings.simplefilter("ignore", DeprecationWarning)
            mask = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(found, *size)))
    except Exception as error:
        raise DatasetError(f"{where}: its mask can't be decoded: {error}") from None
    return np.asarray(mask, dtype=bool)


def _check_outlines(where: str, polygons: list[list[float]], size: tuple[int, int]) -> None:
    """Raises DatasetError for outlines far outside of the image, or so long that pycocotools, which
    keeps every pixel of them, would take the machine's memory or end the process."""
    longest = 0.0
    for polygon in polygons:
        try:
            points = np.array(polygon, float).reshape(-1, 2)
        except OverflowError:
            raise DatasetError(
                f"{where}: its outline has numbers that are none of pixels"
            ) from None
        # x comes first, the height in the size.
        inside = (points >= -_OUTSIDE * np.array(size[::-1])) & (
            points <= (1 + _OUTSIDE) * np.array(size[::-1])
        )
        if not inside.all():
            raise DatasetError(f"{where}: its outline lies far outside of the image")
        steps = np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1)
        longest += float(steps.sum())
    if longest > _LONGEST_OUTLINE:
        raise DatasetError(f"{where}: its outline is {longest:.0f} pixels long")
