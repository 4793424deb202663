"""Words of a prompt that name a class: by name, plural and synonym, longest first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

SYNONYMS = Path(__file__).with_name("synonyms.tsv")

Synonyms = Mapping[str, tuple[str, ...]]


def read_synonyms(path: Path = SYNONYMS) -> Synonyms:
    """The synonyms of each class, of a file of lines ``class<TAB>word, word``; ``#`` begins a
    comment.

    Raises ValueError for another line, naming it, OSError where there is no such file.
    """
    found: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, tab, words = line.partition("\t")
        listed = tuple(word.strip().lower() for word in words.split(","))
        if not tab or not name.strip() or not all(listed):
            raise ValueError(
                f"{path}, line {number}: should be a class, a tab, and words: {line!r}"
            )
        key = name.strip().lower()
        found[key] = (*found.get(key, ()), *listed)
    return MappingProxyType(found)


@cache
def own_synonyms() -> Synonyms:
    """Those that come with the package."""
    return read_synonyms()


def plural(noun: str) -> str:
    """The regular plural of an English noun phrase."""
    if re.search(r"(s|x|z|ch|sh)$", noun):
        return noun + "es"
    if re.search(r"[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + "s"


def spellings(name: str, synonyms: Synonyms | None = None) -> tuple[str, ...]:
    """Every text that names a class: its name, its synonyms, and the plurals of all of them."""
    known = own_synonyms() if synonyms is None else synonyms
    # Label files write several names of a class with commas between, and stuff with hyphens.
    names = [part.strip().lower().replace("_", " ") for part in name.split(",")]
    names += [n.replace("-", " ") for n in names if "-" in n]
    texts = [text for n in names for text in (n, *known.get(n, ()))]
    return tuple(dict.fromkeys(form for text in texts for form in (text, plural(text)) if text))


def places(prompt: str, text: str) -> tuple[slice, ...]:
    """Return the places of a word or phrase in a prompt, in characters, whatever its case."""
    return tuple(slice(m.start(), m.end()) for m in _pattern([text]).finditer(prompt))


def places_of_classes(
    prompt: str, names: Iterable[str], synonyms: Synonyms | None = None
) -> dict[str, tuple[slice, ...]]:
    """The classes that a prompt names, each with the places where it does.

    The longest text wins, so the dog of ``hot dog`` is no dog. A text that names several classes
    counts for the first of them.
    """
    owner: dict[str, str] = {}
    chosen = tuple(names)
    # A class's own name is its own, also where another class has it for a synonym.
    for name in chosen:
        for form in spellings(name, {}):
            owner.setdefault(form, name)
    for name in chosen:
        for form in spellings(name, synonyms):
            owner.setdefault(form, name)
    found: dict[str, list[slice]] = {}
    if not owner:
        return {}
    for match in _pattern(owner).finditer(prompt):
        text = " ".join(match.group().lower().split())
        found.setdefault(owner[text], []).append(slice(match.start(), match.end()))
    return {name: tuple(found[name]) for name in chosen if name in found}


def classes_of(word: str, names: Iterable[str], synonyms: Synonyms | None = None) -> list[str]:
    """The classes that a word names, perhaps none.

    Where the word is a class's own name or its plural, that class alone; else every class that has
    it for a synonym.
    """
    text = " ".join(word.lower().split())
    chosen = tuple(names)
    exact = [name for name in chosen if text in spellings(name, {})]
    return exact or [name for name in chosen if text in spellings(name, synonyms)]


def _pattern(texts: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted({t for t in texts if t.split()}, key=lambda t: (-len(t), t))
    each = (r"\s+".join(re.escape(part) for part in text.split()) for text in longest_first)
    # Whole words only; an apostrophe belongs to its word.
    return re.compile(rf"(?<!\w)(?<!\w['’])(?:{'|'.join(each)})(?!\w|['’]\w)", re.IGNORECASE)
