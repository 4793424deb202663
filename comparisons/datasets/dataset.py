"""``Dataset``: what every format of annotated images gives, one image at a time."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from wordlight.attribution.words import WordKey
from wordlight.backends.regular_files import open_regular
from wordlight.comparisons.datasets.item import Category, Mask

OnError = Literal["raise", "skip"]
T = TypeVar("T")

#: A sample names files of a run.
_SAMPLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
#: How many reasons a warning about skipped items names.
_NAMED = 3


class DatasetError(ValueError):
    """Something in a data set isn't what its format says."""


class DatasetWarning(UserWarning):
    """Something in a data set was left out."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """A word of a prompt and what it names in the image.

    ``place`` says where in the prompt it stands, as ``PromptWords.find`` takes it: a text, a slice
    of characters, or a list of these that together are one. ``mask`` is ``(height, width)``.
    """

    place: WordKey
    mask: Mask
    category: Category = "object"


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """An item of a data set as its files have it: a prompt, perhaps an image, perhaps masks.

    Attributes:
        sample: its name in the data set, which can name a file.
        prompt: not empty.
        image: ``(height, width, 3)`` uint8; None where the prompt is still to be drawn.
        annotations: the words that have a mask, each of the image's size and not empty; None where
            nobody has annotated the image, so that a segmenter has to.
        seed: of the noise that it was, or shall be, drawn from, where the data set says.
    """

    sample: str
    prompt: str
    image: npt.NDArray[np.uint8] | None
    annotations: tuple[Annotation, ...] | None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise DatasetError(f"{self.sample}: the prompt is empty")
        if not is_text(self.prompt):
            raise DatasetError(f"{self.sample}: the prompt is no text: {self.prompt!a}"[:300])
        if self.image is None and self.annotations is not None:
            raise DatasetError(f"{self.sample}: masks without an image")
        places = []
        for one in self.annotations or ():
            assert self.image is not None
            if one.place in places:
                raise DatasetError(
                    f"{self.sample}: {_named(self.prompt, one.place)} has two masks: unite them in "
                    "one"
                )
            places.append(one.place)
            if one.mask.shape != self.image.shape[:2]:
                raise DatasetError(
                    f"{self.sample}: the mask of {_named(self.prompt, one.place)} is "
                    f"{_size(one.mask)}, and the image is {_size(self.image)} (height x width)"
                )
            if not one.mask.any():
                raise DatasetError(
                    f"{self.sample}: the mask of {_named(self.prompt, one.place)} is empty"
                )


@dataclass(frozen=True)
class ListedItem:
    """An item of a listing: its name, what it must not be parted from, and its split.

    Items of one ``group`` (captions of the same image, images of the same prompt) never fall into
    different splits. ``split`` is the data set's own, or None. ``given`` says whether the item has
    an image; where it doesn't, its prompt is to be drawn.
    """

    sample: str
    group: str
    split: str | None = None
    given: bool = True


class Dataset(ABC):
    """Annotated images, read when they are asked for; iterating holds one at a time.

    Args:
        root: the folder or file that holds it. Nothing outside is read.
        on_error: whether what is malformed raises DatasetError (``"raise"``), or is left out and
            counted (``"skip"``), with one DatasetWarning from ``report_skipped``, which iterating
            calls at its end.

    Raises:
        DatasetError: there is no such folder or file, or none of this format.
    """

    #: The name of the format, as ``open_dataset`` takes it.
    format: ClassVar[str]
    #: Whether every image shows one object by design, so that its word is what counts.
    one_object: ClassVar[bool] = False
    #: Whether it is no files, so that its name alone is enough to open it.
    placeless: ClassVar[bool] = False

    def __init__(self, root: str | Path, *, on_error: OnError = "raise") -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', not {on_error!r}")
        self.root = Path(root)
        self.on_error = on_error
        self.skipped: dict[str, str] = {}
        self._reported = 0
        if not self.root.exists():
            raise DatasetError(f"there is no data set at {self.root}")

    @classmethod
    def recognises(cls, place: Path) -> bool:
        """Return whether a folder or file that exists has this format's layout, where none is
        named."""
        return False

    def named_in(self, prompt: str, places: Iterable[slice]) -> tuple[slice, ...]:
        """Those places of a prompt that name what a mask shows; all of them by default.

        A format that knows parts of speech gives nouns alone. A segmenter's words are asked too.
        """
        return tuple(places)

    @property
    def title(self) -> str:
        """The data set's name in a table."""
        return f"{self.format} ({self.root.name})"

    @abstractmethod
    def _list(self) -> Iterable[ListedItem]:
        """Every item, in a fixed order; what is malformed goes through ``_attempt``."""

    @abstractmethod
    def _read(self, sample: str) -> AnnotatedImage:
        """An item; raises DatasetError where it is malformed."""

    @abstractmethod
    def _files(self, sample: str) -> Iterable[Path]:
        """The files that an item is read from."""

    @cached_property
    def listing(self) -> tuple[ListedItem, ...]:
        """Every item, by name; nothing of the images is read for it."""
        seen: dict[str, ListedItem] = {}
        for one in self._list():
            if not _SAMPLE.fullmatch(one.sample):
                self._malformed(
                    one.sample,
                    f"{one.sample!r} can't name an item: letters, digits and . _ @ + - only, "
                    "beginning with a letter or digit, 100 at most",
                )
            elif one.sample in seen:
                self._malformed(f"{one.sample} (again)", f"two items are called {one.sample!r}")
            else:
                seen[one.sample] = one
        if not seen:
            reasons = "".join(f"; {reason}" for reason in list(self.skipped.values())[:_NAMED])
            raise DatasetError(f"{self.root} holds no item of a {self.format} data set{reasons}")
        return tuple(seen.values())

    def __len__(self) -> int:
        return len(self.listing)

    def __iter__(self) -> Iterator[AnnotatedImage]:
        for one in self.listing:
            item = self.attempt(one.sample)
            if item is not None:
                yield item
        self.report_skipped()

    def read(self, sample: str) -> AnnotatedImage:
        """One item; raises DatasetError where it is malformed, KeyError where there is none."""
        if sample not in self._by_sample:
            raise KeyError(f"{self.root} holds no item {sample!r}")
        item, given = self._read(sample), self._by_sample[sample].given
        if (item.image is not None) != given:
            listed, found = ("an", "none") if given else ("no", "one")
            raise DatasetError(f"{sample} is listed with {listed} image, and has {found}")
        return item

    def attempt(self, sample: str) -> AnnotatedImage | None:
        """One item, or None where it is malformed and ``on_error`` is ``"skip"``."""
        return self._attempt(sample, lambda: self.read(sample))

    def _record(self, sample: str) -> Any:
        """Return facts about an item from elsewhere than its files, as plain data."""
        return None

    def identity(self, samples: Iterable[str]) -> dict[str, Any]:
        """Return a digest that tells these items from others: of the options, of what the list says
        of each item, and of its files' names and contents."""
        options = {
            name: getattr(self, name, None)
            for name in signature(type(self)).parameters
            if name not in ("root", "on_error")
        }
        digest = hashlib.sha256(_plain(options))
        # Some formats keep many items in a file.
        seen: set[Path] = set()
        for sample in samples:
            digest.update(f"{sample}\0".encode() + _plain(self._record(sample)))
            # An item that is left out has no files that must be read.
            for path in self._attempt(sample, lambda s=sample: list(self._files(s))) or ():  # type: ignore[misc]
                digest.update(f"{path.name}\0".encode())
                if path not in seen:
                    seen.add(path)
                    digest.update(_digest_of(path))
        return {"format": self.format, "root": self.root.name, "digest": digest.hexdigest()[:16]}

    def leave_out(self, sample: str, reason: str) -> None:
        """Count an item as skipped, or raise DatasetError where nothing is to be skipped."""
        self._malformed(sample, reason)

    def report_skipped(self) -> None:
        """One DatasetWarning for all that was skipped since the last one, if anything was."""
        new = list(self.skipped.values())[self._reported :]
        if not new:
            return
        self._reported = len(self.skipped)
        shown = "; ".join(new[:_NAMED]) + ("; ..." if len(new) > _NAMED else "")
        warnings.warn(f"{len(new)} of {self.root} skipped: {shown}", DatasetWarning, stacklevel=3)

    @cached_property
    def _by_sample(self) -> dict[str, ListedItem]:
        return {one.sample: one for one in self.listing}

    def _attempt(self, what: str, do: Callable[[], T]) -> T | None:
        try:
            return do()
        except DatasetError as error:
            self._malformed(what, str(error))
            return None

    def _malformed(self, what: str, reason: str) -> None:
        if self.on_error == "raise":
            raise DatasetError(reason)
        self.skipped[what] = reason


def is_text(value: str) -> bool:
    """Return whether a text can be written: JSON may have halves of characters, which no model
    reads."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=repr).encode()


def _digest_of(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return b"unreadable"  # Reading says why.


def _named(prompt: str, place: WordKey) -> str:
    if isinstance(place, slice):
        return repr(prompt[place])
    if isinstance(place, list):
        return " and ".join(_named(prompt, one) for one in place)
    return repr(place[0] if isinstance(place, tuple) else place)


def _size(array: npt.NDArray[Any]) -> str:
    return "x".join(str(side) for side in array.shape[:2])
