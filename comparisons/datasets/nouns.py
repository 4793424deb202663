"""Places at which a caption uses a word as a noun: the ``orange`` of "an orange cat" is no
fruit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from wordlight.comparisons.datasets.dataset import DatasetError
from wordlight.comparisons.datasets.tagged_text import (
    TaggedText,
    TaggingError,
    read_conllu,
    spacy_release,
    tag_by_spacy,
)

_NOUNS = ("NOUN", "PROPN")


class Nouns:
    """Tells nouns from other words of captions by their parts of speech, where these are known.

    Args:
        tags: a CoNLL-U file with every caption (``# text = ...``), or nothing.
        spacy: a spaCy pipeline that tags captions, or nothing.

    Raises:
        DatasetError: both are given, or there is no such file or pipeline.
    """

    def __init__(self, tags: str = "", spacy: str = "") -> None:
        if tags and spacy:
            raise DatasetError("parts of speech come from tags= or from spacy=, not from both")
        self.tags = tags
        self.spacy = spacy
        self._by_spacy: dict[str, TaggedText] = {}
        self._in_file: dict[str, TaggedText] = {}
        #: The pipeline with its version: other ones tag otherwise.
        self.release = ""
        try:
            if spacy:
                self.release = spacy_release(spacy)
            if tags:
                self._in_file = {_without_blanks(one.text): one for one in read_conllu(tags)}
        except TaggingError as error:
            raise DatasetError(str(error)) from None
        except OSError as error:
            raise DatasetError(f"{tags} can't be read: {error.strerror}") from None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the parts of speech are read from."""
        return (Path(self.tags),) if self.tags else ()

    def places_of_nouns(self, caption: str, places: Iterable[slice]) -> tuple[slice, ...]:
        """Return the places (in characters) whose last word is a noun; all, where no tags exist.

        Raises DatasetError where the tags can't be had, or don't have the caption.
        """
        if not (self.tags or self.spacy):
            return tuple(places)
        tagged = self.tagged(caption)
        # Of words that are written as one ("dunno") the first one's tag stays.
        tag_at = {_letters(tagged.text, one.stop): one.tag for one in reversed(tagged.tokens)}
        return tuple(
            place for place in places if tag_at.get(_letters(caption, place.stop)) in _NOUNS
        )

    def tagged(self, caption: str) -> TaggedText:
        """A caption with its parts of speech; raises DatasetError where they can't be had."""
        key = _without_blanks(caption)
        try:
            if self.spacy:
                if key not in self._by_spacy:
                    (self._by_spacy[key],) = tag_by_spacy([caption], self.spacy)
                return placed_in(caption, self._by_spacy[key])
            if key not in self._in_file:
                raise DatasetError(f"{self.tags} has no parts of speech of {caption!r}"[:300])
            return placed_in(caption, self._in_file[key])
        except TaggingError as error:
            raise DatasetError(str(error)) from None


def placed_in(caption: str, tagged: TaggedText) -> TaggedText:
    """Return the words of a text at their places in a caption that differs by blanks alone."""
    if tagged.text == caption:
        return tagged
    at = [index for index, letter in enumerate(caption) if not letter.isspace()]
    before = partial(_letters, tagged.text)
    moved = (
        replace(one, start=at[before(one.start)], stop=at[before(one.stop) - 1] + 1)
        for one in tagged.tokens
    )
    return TaggedText(caption, tuple(moved))


def _without_blanks(text: str) -> str:
    return "".join(text.split())


def _letters(text: str, stop: int) -> int:
    """Return the number of characters but blanks before a place, which no spacing changes."""
    return len(_without_blanks(text[:stop]))
