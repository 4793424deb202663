"""The places of a text's words, in any script, with or without blanks between them."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

#: Scripts that put no blanks between words, as first and last characters of blocks: Thai, Lao,
#: Tibetan, Burmese, Khmer, Chinese and Japanese, Yi, and halfwidth Katakana.
_WITHOUT_BLANKS = (
    ("\u0e00", "\u0fff"),
    ("\u1000", "\u109f"),
    ("\u1780", "\u17ff"),
    ("\u2e80", "\u2fdf"),
    ("\u3005", "\u3007"),
    ("\u3021", "\u3029"),
    ("\u3041", "\u312f"),
    ("\u31a0", "\u31ff"),
    ("\u3400", "\u9fff"),
    ("\ua000", "\ua4cf"),
    ("\uf900", "\ufaff"),
    ("\uff66", "\uff9f"),
    ("\U00020000", "\U0003ffff"),
)
_JOINER = "\u200d"
_APOSTROPHES = "'’"


def word_spans(text: str) -> list[tuple[int, int]]:
    """The character spans of a text's words, in order.

    A word is a run of letters, digits and underscores (an apostrophe inside belongs to it), or one
    other mark. In scripts without blanks every character is a word. Accents, vowel signs and the
    like belong to what they stand on; an emoji of several code points is one mark.
    """
    spans: list[tuple[int, int]] = []
    before = ""
    kind = ""
    for place, character in enumerate(text):
        now = _kind(character)
        if now == "apostrophe":
            inside = kind == "letter" and _kind(text[place + 1 : place + 2]) == "letter"
            now = "letter" if inside else "mark"
        if now == "blank":
            kind = ""
        elif _goes_on(now, kind, before):
            spans[-1] = (spans[-1][0], place + 1)
            # A flag is two letters, and the next one begins another.
            kind = "mark" if now == "flag" else kind
        else:
            spans.append((place, place + 1))
            kind = "mark" if now == "joins" else now
        before = character
    return spans


def pieces_of(text: str) -> list[str]:
    """The words of a text in lower case, composed; a text without any is one piece.

    Two texts with the same pieces read the same.
    """
    composed = unicodedata.normalize("NFC", text).lower()
    return [composed[start:stop] for start, stop in word_spans(composed)] or [composed]


def has_no_blanks(text: str) -> bool:
    """Return whether some neighbouring characters of a text are of a script without blanks."""
    return any(_kind(a) == _kind(b) == "character" for a, b in pairwise(text))


def _goes_on(now: str, kind: str, before: str) -> bool:
    """Return whether a character belongs to the same word as the one before it."""
    if not kind:
        return False
    joined = before == _JOINER and kind == now == "mark"
    return now == "joins" or joined or (now == kind and now in ("letter", "flag"))


def _kind(character: str) -> str:
    if not character or character.isspace():
        return "blank"
    if character in _APOSTROPHES:
        return "apostrophe"
    if "\U0001f1e6" <= character <= "\U0001f1ff":
        return "flag"
    # Combining marks, joiners, skin tones, the letters of regional flags.
    if (
        unicodedata.category(character)[0] == "M"
        or character in ("\u200c", _JOINER)
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or "\U000e0020" <= character <= "\U000e007f"
    ):
        return "joins"
    if not (character.isalnum() or character == "_"):
        return "mark"
    if any(first <= character <= last for first, last in _WITHOUT_BLANKS):
        return "character"
    return "letter"
