"""The prompt as a row of words and the text between them, for one panel or several."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from wordlight.attribution.viewer.panel import Panel
from wordlight.attribution.words import Word


@dataclass(frozen=True)
class ShownWord:
    """A word of the page.

    Attributes:
        name: what it is called where it stands alone; of equal texts with their number.
        kind: ``"text"``, ``"special"`` (a position that is no text) or ``"other"`` (a word that
            isn't in the prompt).
        players: which player of each panel it belongs to; None where a panel has none.
    """

    name: str
    kind: str
    players: tuple[int | None, ...]


@dataclass(frozen=True)
class Piece:
    """A piece of the prompt's text; ``word`` is the number of its word, None for what is none."""

    text: str
    word: int | None


@dataclass(frozen=True)
class ShownPrompt:
    """A prompt cut so finely that every piece is of one player at most in every panel.

    Pieces that belong to the same players everywhere are one word.
    """

    pieces: tuple[Piece, ...]
    words: tuple[ShownWord, ...]
    right_to_left: bool

    @classmethod
    def of(cls, panels: Sequence[Panel]) -> ShownPrompt:
        """The prompt of panels that share one.

        Raises ValueError for panels of different prompts.
        """
        prompt = panels[0].prompt
        for panel in panels:
            if panel.prompt != prompt:
                raise ValueError(
                    f"maps side by side must be of one prompt, not of {prompt!r} and "
                    f"{panel.prompt!r}"
                )
        words: dict[tuple[int | None, ...], list[str]] = {}
        pieces = []
        spans = {span for panel in panels for player in panel.players for span in player.spans}
        edges = sorted({0, len(prompt), *(cut for span in spans for cut in span)})
        for start, stop in pairwise(edges):
            text = prompt[start:stop]
            owners = tuple(_owner(panel, start, stop) for panel in panels)
            # A blank inside a phrase is of no word, where another panel cuts the phrase there.
            blank = text.isspace() and (start, stop) not in spans
            if blank or all(owner is None for owner in owners):
                pieces.append(Piece(text if text.isspace() else visible(text), None))
                continue
            number = list(words).index(owners) if owners in words else len(words)
            words.setdefault(owners, []).append(text)
            pieces.append(Piece(visible(text), number))
        names = _numbered([" … ".join(map(visible, texts)) for texts in words.values()])
        shown = [ShownWord(n, "text", owners) for n, owners in zip(names, words, strict=True)]
        return cls(tuple(pieces), (*shown, *_not_text(panels)), _right_to_left(prompt))


def visible(text: str) -> str:
    """The text, or the code points of one that shows nothing: ``U+202E``."""
    nothing = ("Cc", "Cf", "Cs", "Mn", "Zs", "Zl", "Zp", "Cn", "Co")
    if any(unicodedata.category(character) not in nothing for character in text):
        return text
    return " ".join(f"U+{ord(c):04X}" for c in text)


def _owner(panel: Panel, start: int, stop: int) -> int | None:
    for index, player in enumerate(panel.players):
        if any(first <= start and stop <= last for first, last in player.spans):
            return index
    return None


def _numbered(names: list[str]) -> list[str]:
    """Names that occur several times, with their number."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        key = name.lower()
        seen[key] = seen.get(key, 0) + 1
        several = sum(other.lower() == key for other in names) > 1
        found.append(f"{name} ({seen[key]})" if several else name)
    return found


def _not_text(panels: Sequence[Panel]) -> list[ShownWord]:
    """Special positions and words from outside the prompt, each once for all panels."""

    def named(player: Word) -> tuple[str, str]:
        return ("special" if player.in_prompt else "other"), " ".join(player.text.lower().split())

    found: dict[tuple[str, str], list[int | None]] = {}
    names: dict[tuple[str, str], str] = {}
    for place, panel in enumerate(panels):
        for index, player in enumerate(panel.players):
            if not player.spans:
                key = named(player)
                names.setdefault(key, visible(player.text))
                found.setdefault(key, [None] * len(panels))[place] = index
    return [ShownWord(names[key], key[0], tuple(players)) for key, players in found.items()]


def _right_to_left(text: str) -> bool:
    """Whether the first letter with a direction of its own runs from right to left."""
    for character in text:
        if (direction := unicodedata.bidirectional(character)) in ("L", "R", "AL"):
            return direction != "L"
    return False
