"""A plain folder: images, masks, and a list of items in JSON lines or Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wordlight.attribution.words import WordKey
from wordlight.backends.regular_files import open_regular, parse_json
from wordlight.backends.segmenters.matching import places
from wordlight.comparisons.datasets.dataset import (
    AnnotatedImage,
    Annotation,
    Dataset,
    DatasetError,
    ListedItem,
    OnError,
    is_text,
)
from wordlight.comparisons.datasets.files import check_plain, inside, read_image, read_mask
from wordlight.comparisons.datasets.item import Category
from wordlight.comparisons.datasets.nouns import Nouns

_FIELDS = ("id", "prompt", "image", "masks", "seed", "split", "stuff")
_SPLITS = ("calibration", "test")
#: In bytes; an item that names a thousand masks has a tenth of it.
_LONGEST_LINE = 1_000_000


class PlainFolder(Dataset):
    """Images and masks named by the lines of ``items.jsonl`` or the rows of ``*.parquet`` files.

    An item has a ``prompt``, an ``image`` (a path), and ``masks``: an object of a path a word, or,
    for one place of several, a list of ``{"word", "occurrence", "mask"}``. It may have an ``id``
    (else the image's name), a ``seed``, a ``split`` (``calibration`` or ``test``), and ``stuff``
    (which of its words name no countable thing). Without masks it is for a segmenter; with neither
    image nor masks the prompt is drawn. What a mask's image may be like, ``read_mask`` says.

    Args:
        root: the folder.
        tags, spacy: the source of prompts' parts of speech (see ``Nouns``), so that a segmenter
            makes masks for nouns alone. Words with a mask of their own are scored as they are.
    """

    format = "folder"

    def __init__(
        self, root: str | Path, *, tags: str = "", spacy: str = "", on_error: OnError = "raise"
    ) -> None:
        super().__init__(root, on_error=on_error)
        self._nouns = Nouns(tags, spacy)
        self.tags, self.spacy = tags, self._nouns.release
        self._records: dict[str, dict[str, Any]] = {}

    def named_in(self, prompt: str, places: Iterable[slice]) -> tuple[slice, ...]:
        return self._nouns.places_of_nouns(prompt, places)

    @classmethod
    def recognises(cls, place: Path) -> bool:
        return place.is_dir() and any(
            path.suffix in (".jsonl", ".parquet") for path in place.iterdir()
        )

    def _list(self) -> Iterable[ListedItem]:
        if not self.root.is_dir():
            raise DatasetError(f"{self.root} is no folder")
        names = sorted(
            path.name for path in self.root.iterdir() if path.suffix in (".jsonl", ".parquet")
        )
        if not names:
            raise DatasetError(f"{self.root} has no items.jsonl and no .parquet file of items")
        for name in names:
            path = self._attempt(name, lambda name=name: inside(self.root, name))  # type: ignore[misc]
            if path is not None:
                yield from self._rows(path)

    def _rows(self, path: Path) -> Iterator[ListedItem]:
        found = self._lines(path) if path.suffix == ".jsonl" else self._parquet(path)
        for where, record in found:
            listed = self._attempt(where, lambda w=where, r=record: self._listed(w, r))  # type: ignore[misc]
            if listed is not None:
                self._records.setdefault(listed.sample, record)
                yield listed

    def _lines(self, path: Path) -> Iterator[tuple[str, Any]]:
        try:
            with open_regular(path) as file:
                lines = iter(lambda: file.readline(_LONGEST_LINE + 1), b"")
                for number, line in enumerate(lines, 1):
                    if not line.strip():
                        continue
                    where = f"{path.name}, line {number}"
                    if len(line) > _LONGEST_LINE:
                        self._malformed(where, f"{where} has more than {_LONGEST_LINE} bytes")
                        return
                    record = self._attempt(where, lambda w=where, li=line: _parsed(w, li))  # type: ignore[misc]
                    if record is not None:
                        yield where, _without_nulls(record)
        except OSError as error:
            self._malformed(path.name, f"{path} can't be read: {error.strerror}")

    def _parquet(self, path: Path) -> Iterator[tuple[str, Any]]:
        number = 0
        try:
            with pq.ParquetFile(check_plain(path), page_checksum_verification=True) as file:
                if "prompt" not in file.schema_arrow.names:
                    raise DatasetError(
                        f"{path} has no column prompt, but {', '.join(file.schema_arrow.names)}"
                    )
                for batch in file.iter_batches(batch_size=1024):
                    for record in self._batch(path, number, batch):
                        number += 1
                        if record is not None:
                            yield f"{path.name}, row {number}", _without_nulls(record)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            self._malformed(path.name, f"{path} is no Parquet that can be read: {error}")
        except DatasetError as error:
            self._malformed(path.name, str(error))

    def _batch(self, path: Path, before: int, batch: pa.RecordBatch) -> list[Any]:
        """The rows of a batch, with None for one that is left out."""
        try:
            whole: list[Any] = batch.to_pylist()
            return whole
        except Exception:
            # One by one, which is slower, to find the ones whose texts are none, or whose dates
            # lie beyond Python's.
            rows = ((f"{path.name}, row {before + 1 + i}", i) for i in range(batch.num_rows))
            return [self._attempt(w, lambda w=w, i=i: _row(w, batch, i)) for w, i in rows]  # type: ignore[misc]

    def _listed(self, where: str, record: Any) -> ListedItem:
        if not isinstance(record, dict):
            raise DatasetError(f"{where}: an item is a JSON object, not {type(record).__name__}")
        if unknown := sorted(record.keys() - set(_FIELDS)):
            raise DatasetError(f"{where}: unknown {unknown[0]!r}; an item has {', '.join(_FIELDS)}")
        prompt, image, split = record.get("prompt"), record.get("image"), record.get("split")
        if not isinstance(prompt, str) or not prompt.strip():
            raise DatasetError(f"{where}: an item needs a prompt")
        if image is not None and not isinstance(image, str):
            raise DatasetError(f"{where}: image should be a path, not {image!r}")
        if not is_text(prompt + (image or "")):
            raise DatasetError(f"{where}: prompt and image should be texts: {prompt!a}, {image!a}")
        if split is not None and split not in _SPLITS:
            raise DatasetError(f"{where}: split should be calibration or test, not {split!r}")
        sample = record.get("id", Path(image).stem if image else None)
        if sample is None:
            raise DatasetError(f"{where}: an item without an image needs an id")
        group = image or prompt.strip().lower()
        return ListedItem(str(sample), group, split, given=image is not None)

    def _read(self, sample: str) -> AnnotatedImage:
        record = self._records[sample]
        prompt = record["prompt"].strip()
        image = None if record.get("image") is None else inside(self.root, record["image"])
        pixels = None if image is None else read_image(image)
        stuff = record.get("stuff", [])
        if not isinstance(stuff, list):
            raise DatasetError(f"{sample}: stuff should be a list of words, not {stuff!r}")
        annotations = None
        if record.get("masks") is not None:
            masks = _masks(sample, record["masks"])
            annotations = tuple(
                self._annotation(sample, prompt, word, occurrence, mask, stuff)
                for word, occurrence, mask in masks
            )
            if not annotations:
                raise DatasetError(f"{sample}: masks names no word")
            words = [word for word, _, _ in masks]
            if unknown := [word for word in stuff if word not in words]:
                raise DatasetError(
                    f"{sample}: stuff names {unknown[0]!r}, and the words with a mask are "
                    f"{', '.join(map(repr, words))}"[:300]
                )
        seed = record.get("seed")
        if seed is not None and not (type(seed) is int and 0 <= seed < 2**63):
            raise DatasetError(f"{sample}: the seed should be a whole number, not {seed!r}")
        return AnnotatedImage(sample, prompt, pixels, annotations, seed)

    def _annotation(
        self,
        sample: str,
        prompt: str,
        word: str,
        occurrence: int | None,
        mask: str | None,
        stuff: list[Any],
    ) -> Annotation:
        if not mask:
            raise DatasetError(f"{sample}: the word {word!r} has no mask")
        found = places(prompt, word)
        if not found or (occurrence is not None and not 0 <= occurrence < len(found)):
            times = f" {len(found)} time(s)" if found else ""
            raise DatasetError(
                f"{sample}: a mask of {word!r}"
                + (f", occurrence {occurrence} from 0" if occurrence is not None else "")
                + f", which the prompt {prompt!r} "
                + (f"has{times}" if found else "doesn't have")
            )
        place: WordKey = list(found) if len(found) > 1 else found[0]
        if occurrence is not None:
            place = found[occurrence]
        path = inside(self.root, mask)
        if not path.is_file():
            raise DatasetError(f"{sample}: the word {word!r} has no mask: there is no {path}")
        category: Category = "stuff" if word in stuff else "object"
        return Annotation(place, read_mask(path), category)

    def _record(self, sample: str) -> Any:
        return self._records[sample]

    def _files(self, sample: str) -> Iterable[Path]:
        record = self._records[sample]
        named = [record.get("image")]
        try:
            named += [mask for _, _, mask in _masks(sample, record.get("masks") or {})]
            own = [inside(self.root, name) for name in named if name]
            return [*own, *self._nouns.files]
        except DatasetError:
            return []  # Reading says what is wrong.


def _parsed(where: str, line: bytes) -> Any:
    try:
        return parse_json(line, unique=True)
    except ValueError as error:
        raise DatasetError(f"{where} is no JSON, or was cut short: {error}") from None


def _row(where: str, batch: pa.RecordBatch, index: int) -> Any:
    try:
        return batch.slice(index, 1).to_pylist()[0]
    except UnicodeDecodeError as error:
        raise DatasetError(f"{where}: a text is not in UTF-8: {error}") from None
    except Exception as error:
        raise DatasetError(f"{where} can't be read: {error}") from None


def _masks(sample: str, masks: Any) -> list[tuple[str, int | None, str | None]]:
    """(word, occurrence or None, path) of each mask, from either form."""
    if isinstance(masks, dict):
        found: list[tuple[Any, Any, Any]] = [(word, None, path) for word, path in masks.items()]
    elif isinstance(masks, list):
        # A map of Parquet reads as a list of pairs.
        found = [
            (one[0], None, one[1])
            if isinstance(one, tuple) and len(one) == 2
            else (one.get("word"), one.get("occurrence"), one.get("mask"))
            if isinstance(one, dict)
            else (None, None, None)
            for one in masks
        ]
    else:
        found = [(None, None, None)]
    for word, occurrence, path in found:
        if (
            not isinstance(word, str)
            or not isinstance(occurrence, int | None)
            or not isinstance(path, str | None)
        ):
            raise DatasetError(
                f"{sample}: masks should be an object of a path a word, or a list of objects of "
                f"word, occurrence and mask, not {masks!r}"[:300]
            )
    return found


def _without_nulls(record: Any) -> Any:
    """An item without the fields that say nothing; what is no item, as it is."""
    if not isinstance(record, dict):
        return record
    return {key: value for key, value in record.items() if value is not None}
