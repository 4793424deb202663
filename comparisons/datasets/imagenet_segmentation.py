"""ImageNet-Segmentation: 4 276 photographs of one object each, in one HDF5 file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from wordlight.comparisons.datasets.dataset import (
    AnnotatedImage,
    Annotation,
    Dataset,
    DatasetError,
    ListedItem,
    OnError,
)
from wordlight.comparisons.datasets.files import check_plain, read_text
from wordlight.comparisons.datasets.prompts import TEMPLATE, check_template, prompt_of

#: Numbers of an array; an image of more would be none of these photographs.
_LARGEST = 200_000_000
#: ImageNet's list of all synsets has 3 million bytes.
_LONGEST_LIST = 20_000_000
_SYNSET = re.compile(r"n\d{8}")


class ImageNetSegmentation(Dataset):
    """The layout of ``gtsegs_ijcv.mat``: MATLAB's cells, as HDF5 keeps them.

    ``value/img``, ``value/gt`` and ``value/id`` are ``(images, 1)`` references: to the image,
    ``(3, width, height)`` uint8; to a reference to its mask, ``(width, height)``; to the letters of
    its name, which begins with its synset, such as ``n01443537_16``. There are no captions, so the
    prompt names the synset. Guillaumin, Küttel, Ferrari, ImageNet Auto-Annotation with
    Segmentation Propagation, IJCV 2014.

    Args:
        root: the file.
        names: a text file that says what a synset is called, ``n01443537 goldfish, ...`` a line,
            as ImageNet's ``LOC_synset_mapping.txt`` does; the first name is used.
        prompt: a template, with ``{}`` for the name.
    """

    format = "imagenet-segmentation"
    one_object = True

    def __init__(
        self,
        root: str | Path,
        *,
        names: str = "",
        prompt: str = TEMPLATE,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(root, on_error=on_error)
        self.prompt = check_template(prompt)
        if not names:
            raise DatasetError(
                "ImageNet-Segmentation has synsets and no words: give a file with their names, "
                "such as ImageNet's LOC_synset_mapping.txt, as names=FILE"
            )
        self.names = _read_names(Path(names))
        self._synsets: list[str] = []

    @classmethod
    def recognises(cls, place: Path) -> bool:
        return place.is_file() and place.suffix in (".mat", ".h5", ".hdf5")

    def _list(self) -> Iterable[ListedItem]:
        with self._opened() as file:
            ids = self._table(file, "id")
            self._synsets = []
            for index in range(len(ids)):
                name = self._attempt(f"image {index}", lambda i=index: self._name(file, ids, i))  # type: ignore[misc]
                self._synsets.append(name or "")
                if name is not None:
                    # Photographs of one synset have the same prompt.
                    yield ListedItem(f"{index:04d}", name.partition("_")[0])

    def _read(self, sample: str) -> AnnotatedImage:
        index = int(sample)
        synset = _SYNSET.match(self._synsets[index])
        if synset is None:
            raise DatasetError(f"image {sample} is called {self._synsets[index]!r}: no synset")
        if synset.group() not in self.names:
            raise DatasetError(f"image {sample} is of {synset.group()}, which has no name")
        with self._opened() as file:
            image = self._array(file, self._table(file, "img"), index, "image", 3)
            cell = self._target(file, self._table(file, "gt"), index, "mask")
            mask = self._array(file, cell, 0, "mask", 2)
        if image.shape[0] != 3 or image.dtype != np.uint8:
            raise DatasetError(
                f"image {sample} should be (3, width, height) uint8, not {image.shape} "
                f"{image.dtype}"
            )
        prompt, (span,) = prompt_of(self.prompt, [self.names[synset.group()]])
        pixels = np.ascontiguousarray(image.transpose(2, 1, 0))
        return AnnotatedImage(sample, prompt, pixels, (Annotation(span, mask.T > 0),))

    def _files(self, sample: str) -> Iterable[Path]:
        return (self.root,)

    def _opened(self) -> Any:
        try:
            import h5py
        except ImportError:
            raise DatasetError(
                "ImageNet-Segmentation needs h5py: pip install 'wordlight[hdf5]'"
            ) from None
        try:
            return h5py.File(check_plain(self.root), "r")
        except OSError as error:
            raise DatasetError(f"{self.root} is no HDF5 file that can be read: {error}") from None

    def _table(self, file: Any, name: str) -> Any:
        import h5py

        try:
            for path in ("value", f"value/{name}"):
                # Links may lead into other files.
                if not isinstance(file.get(path, getlink=True), h5py.HardLink):
                    raise DatasetError(f"{self.root} has no {path} of its own")
            table = file[f"value/{name}"]
            if (
                not isinstance(table, h5py.Dataset)
                or h5py.check_ref_dtype(table.dtype) is None
                or not table.shape
            ):
                raise DatasetError(f"{self.root} has no references in value/{name}")
        except DatasetError:
            raise
        except Exception as error:  # whatever HDF5 runs into where a file is damaged
            raise DatasetError(f"{self.root} is damaged, at value/{name}: {error}") from None
        return table

    def _target(self, file: Any, table: Any, index: int, what: str) -> Any:
        """Return the object that a cell refers to: a dataset of the same file, of plain numbers or
        references."""
        import h5py

        try:
            reference = np.asarray(table[index]).ravel()[0]
            # A text would be a path, which may lead into other files.
            target = file[reference] if isinstance(reference, h5py.Reference) else None
        except Exception as error:  # whatever HDF5 runs into where a file is damaged
            raise DatasetError(f"{self.root}: the {what} of image {index}: {error}") from None
        # Data in other files would lie outside of the data set.
        if not isinstance(target, h5py.Dataset) or target.external or target.is_virtual:
            raise DatasetError(f"{self.root}: the {what} of image {index} is no data of this file")
        return target

    def _array(self, file: Any, table: Any, index: int, what: str, ndim: int) -> Any:
        target = self._target(file, table, index, what)
        # Objects would be pickled: numbers only.
        if target.ndim != ndim or target.dtype.kind not in "buif":
            raise DatasetError(
                f"{self.root}: the {what} of image {index} should be {ndim}-dimensional numbers, "
                f"not {target.ndim}-dimensional {target.dtype}"
            )
        if target.size > _LARGEST:
            raise DatasetError(f"{self.root}: the {what} of image {index} is {target.shape}")
        try:
            return np.asarray(target[()])
        except Exception as error:  # whatever HDF5 runs into where a file is damaged
            raise DatasetError(f"{self.root}: the {what} of image {index}: {error}") from None

    def _name(self, file: Any, table: Any, index: int) -> str:
        letters = self._array(file, table, index, "name", 2).ravel()
        try:
            return bytes(letters.tolist()).decode("ascii").strip()
        except (ValueError, TypeError):
            raise DatasetError(f"{self.root}: the name of image {index} is no text") from None


def _read_names(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise DatasetError(f"there is no file of names {path}")
    names = {}
    for number, line in enumerate(read_text(path, _LONGEST_LIST).splitlines(), 1):
        synset, _, called = line.strip().partition("\t" if "\t" in line else " ")
        first = called.split(",")[0].strip()
        if not _SYNSET.fullmatch(synset) or not first:
            raise DatasetError(f"{path}, line {number}: should be a synset and its names: {line!r}")
        names[synset] = first
    return names
