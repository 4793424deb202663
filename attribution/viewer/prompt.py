"""The prompts as rows of words and the text between them, for one panel or several."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from wordlight.attribution.viewer.panel import Panel
from wordlight.attribution.words import Word


@dataclass(frozen=True)
class ShownWord:
    """A word of the page.

    Attributes:
        name: its name where it stands alone; equal texts have their number in it.
        kind: ``"text"``, ``"special"`` (a position that is no text) or ``"other"`` (a word that
            isn't in the prompt).
        players: the player of each panel that it belongs to; None where a panel has none.
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
class ShownText:
    """A text that words are of: the prompt, or the negative one.

    Attributes:
        title: the heading before it; nothing for the prompt.
        pieces: the whole text.
        right_to_left: whether it is written from right to left.
    """

    title: str
    pieces: tuple[Piece, ...]
    right_to_left: bool


@dataclass(frozen=True)
class ShownPrompt:
    """The texts of panels, cut so finely that every piece is of one player at most in every panel.

    Pieces that belong to the same players everywhere are one word.
    """

    texts: tuple[ShownText, ...]
    words: tuple[ShownWord, ...]

    @classmethod
    def of(cls, panels: Sequence[Panel]) -> ShownPrompt:
        """The prompt of panels that share one, and the negative prompt of those that are of it.

        Raises ValueError for panels of different prompts.
        """
        kinds = sorted({panel.negative for panel in panels})
        texts: list[ShownText] = []
        words: list[ShownWord] = []
        for negative in kinds:
            prompt = _shared([panel.prompt for panel in panels if panel.negative is negative])
            among = [panel if panel.negative is negative else None for panel in panels]
            text, of_text = _cut(prompt, among, len(words))
            texts.append(ShownText("Negative prompt" if negative else "", *text))
            suffix = " (negative)" if negative else ""
            words += [replace(word, name=word.name + suffix) for word in of_text]
        return cls(tuple(texts), (*words, *_not_text(panels)))


def _shared(prompts: Sequence[str]) -> str:
    for prompt in prompts:
        if prompt != prompts[0]:
            raise ValueError(
                f"maps side by side must be of one prompt, not of {prompts[0]!r} and {prompt!r}"
            )
    return prompts[0]


def _cut(
    prompt: str, panels: Sequence[Panel | None], first: int
) -> tuple[tuple[tuple[Piece, ...], bool], list[ShownWord]]:
    """A text's pieces and its direction, and its words, which are counted from ``first``.

    Panels of another text are None.
    """
    words: dict[tuple[int | None, ...], list[str]] = {}
    pieces = []
    players = [player for panel in panels if panel is not None for player in panel.players]
    spans = {span for player in players for span in player.spans}
    edges = sorted({0, len(prompt), *(cut for span in spans for cut in span)})
    for start, stop in pairwise(edges):
        text = prompt[start:stop]
        owners = tuple(p if p is None else _owner(p, start, stop) for p in panels)
        # A blank inside a phrase is of no word, where another panel cuts the phrase there.
        blank = text.isspace() and (start, stop) not in spans
        if blank or all(owner is None for owner in owners):
            pieces.append(Piece(text if text.isspace() else visible(text), None))
            continue
        number = list(words).index(owners) if owners in words else len(words)
        words.setdefault(owners, []).append(text)
        pieces.append(Piece(visible(text), first + number))
    names = _numbered([" … ".join(map(visible, texts)) for texts in words.values()])
    shown = [ShownWord(n, "text", owners) for n, owners in zip(names, words, strict=True)]
    return (tuple(pieces), _right_to_left(prompt)), shown


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
    """Return whether the first letter with a direction of its own runs from right to left."""
    for character in text:
        if (direction := unicodedata.bidirectional(character)) in ("L", "R", "AL"):
            return direction != "L"
    return False
