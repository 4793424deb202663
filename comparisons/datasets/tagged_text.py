"""Words of a text with their parts of speech: from CoNLL-U, or by spaCy where it is installed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from wordlight.backends.regular_files import open_regular


@dataclass(frozen=True)
class TaggedToken:
    """A word of a text.

    ``start`` and ``stop`` are characters of the text, ``tag`` a Universal Dependencies part of
    speech; ``head`` is the index of the word that it depends on, None for a root or where nothing
    is known, by the relation ``relation``.
    """

    text: str
    start: int
    stop: int
    tag: str
    head: int | None = None
    relation: str = ""


@dataclass(frozen=True)
class TaggedText:
    """A sentence with its words in order."""

    text: str
    tokens: tuple[TaggedToken, ...]


class TaggingError(ValueError):
    """Parts of speech that can't be had."""


def read_conllu(path: str | Path) -> Iterator[TaggedText]:
    """The sentences of a CoNLL-U file, one at a time; each needs its ``# text = ...``.

    Raises TaggingError for lines that aren't CoNLL-U or words that its text doesn't have, OSError
    where there is no such file.
    """
    text: str | None = None
    rows: list[tuple[int, list[str]]] = []
    with TextIOWrapper(open_regular(Path(path)), encoding="utf-8") as file:
        number = 0
        try:
            for number, line in enumerate(file, 1):
                stripped = line.strip()
                if not stripped:
                    if rows:
                        yield _sentence(path, text, rows)
                    text, rows = None, []
                elif stripped.startswith("#"):
                    key, equals, value = stripped[1:].partition("=")
                    if equals and key.strip() == "text":
                        text = value.strip()
                else:
                    rows.append((number, line.rstrip("\n").split("\t")))
        except UnicodeDecodeError:
            raise TaggingError(f"{path} is no text in UTF-8 (after line {number})") from None
    if rows:
        yield _sentence(path, text, rows)


def as_conllu(text: TaggedText) -> str:
    """Return a sentence in CoNLL-U, with the empty line that ends it."""
    lines = [f"# text = {text.text}"]
    for number, token in enumerate(text.tokens, 1):
        head = 0 if token.head is None else token.head + 1
        relation = token.relation or "_"
        fields = (number, token.text, "_", token.tag, "_", "_", head, relation, "_", "_")
        lines.append("\t".join(map(str, fields)))
    return "\n".join(lines) + "\n\n"


def tag_by_spacy(texts: Iterable[str], model: str) -> Iterator[TaggedText]:
    """Texts tagged by a spaCy pipeline, one at a time.

    Raises TaggingError where spaCy or the pipeline isn't installed, or doesn't tag.
    """
    for doc in _pipeline(model).pipe(texts):
        yield text_of_doc(doc)


def spacy_release(model: str) -> str:
    """A spaCy pipeline's name and version; raises TaggingError where it isn't installed."""
    return f"{model} {_pipeline(model).meta['version']}"


@cache
def _pipeline(model: str) -> Any:
    try:
        import spacy
    except ImportError:
        raise TaggingError(
            "spaCy isn't installed: install it with a pipeline that tags parts of speech, or give "
            "the parts of speech in a CoNLL-U file"
        ) from None
    try:
        return spacy.load(model)
    except (OSError, ValueError) as error:
        raise TaggingError(f"spaCy has no pipeline {model!r}: {error}") from None


def text_of_doc(doc: Any) -> TaggedText:
    """A tagged spaCy document; raises TaggingError for one whose words have no part of speech."""
    tokens = []
    places = {token.i: place for place, token in enumerate(t for t in doc if not t.is_space)}
    for token in doc:
        if token.is_space:
            continue
        if not token.pos_:
            raise TaggingError(f"spaCy's pipeline gave {token.text!r} no part of speech")
        head = None if token.head.i == token.i else places.get(token.head.i)
        stop = token.idx + len(token.text)
        tokens.append(TaggedToken(token.text, token.idx, stop, token.pos_, head, token.dep_))
    return TaggedText(doc.text, tuple(tokens))


def _sentence(path: str | Path, text: str | None, rows: list[tuple[int, list[str]]]) -> TaggedText:
    first = rows[0][0]
    if text is None:
        raise TaggingError(f"{path}: the sentence at line {first} has no '# text = ...'")
    # Words that are written as one ("1-2  don't") share its place; empty nodes ("1.1") have none.
    found: list[tuple[int, str, str, int, int, str, str, str]] = []
    together: tuple[int, int, int] | None = None
    position = 0
    for number, fields in rows:
        if len(fields) != 10:
            raise TaggingError(f"{path}, line {number}: {len(fields)} fields, and CoNLL-U has 10")
        identity, form, tag, head, relation = fields[0], fields[1], fields[3], fields[6], fields[7]
        if "." in identity:
            continue
        if together is None or not (identity.isdigit() and int(identity) <= together[0]):
            start = text.find(form, position)
            if start < 0:
                raise TaggingError(f"{path}, line {number}: {form!r} isn't in {text!r}")
            place = (start, start + len(form))
            position = place[1]
        else:
            place = together[1:]
        if "-" in identity:
            last = identity.partition("-")[2]
            if not last.isdigit():
                raise TaggingError(f"{path}, line {number}: {identity!r} is no range of words")
            together = (int(last), *place)
            continue
        found.append((number, identity, form, *place, tag, head, relation))
    index: dict[str, int] = {}
    for position, (number, identity, *_) in enumerate(found):
        if not identity.isdigit() or identity in index:
            why = "stands twice" if identity in index else "is no word's number"
            raise TaggingError(f"{path}, line {number}: {identity!r} {why}")
        index[identity] = position
    tokens = []
    for number, _, form, start, stop, tag, head, relation in found:
        if head not in ("0", "_") and head not in index:
            raise TaggingError(f"{path}, line {number}: the head {head!r} is no word's number")
        tokens.append(TaggedToken(form, start, stop, tag, index.get(head), relation))
    return TaggedText(text, tuple(tokens))
