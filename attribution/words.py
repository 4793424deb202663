"""Words of a prompt, and which tokens each of them is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral
from typing import TypeAlias

from wordlight.attribution.word_spans import has_no_blanks, pieces_of, word_spans
from wordlight.backends.tokens import Tokens

SPECIAL = {
    "<start>": "start",
    "<end>": "end",
    "<pad>": "pad",
    "<template>": "template",
    "<register>": "register",
    "<other>": "other",
}
#: What is left of a word that the context cut in two.
CUT = "<cut>"

#: Where words stand: a text (a phrase too), a text and its occurrence, a character span.
WordPlace: TypeAlias = str | tuple[str, int] | slice
#: How a word is asked for: by its place, or by a list of places that together are one.
WordKey: TypeAlias = WordPlace | list[WordPlace]


@dataclass(frozen=True)
class Word:
    """A word, a phrase, a group of words or a special position of a prompt; or a word that the
    prompt doesn't have.

    ``start`` and ``stop`` are character positions in the prompt (0, 0 for ``<start>`` and the
    like); ``tokens`` are context positions, none for a word that isn't in the prompt;
    ``occurrence`` counts equal texts from 0. ``parts`` are the character spans of a group of words
    that don't stand together, whose text names them with ``…`` between; none for anything else.
    """

    text: str
    start: int
    stop: int
    tokens: tuple[int, ...]
    occurrence: int = 0
    parts: tuple[tuple[int, int], ...] = ()

    @classmethod
    def outside(cls, text: str) -> Word:
        """A word that isn't in the prompt, its blanks made single.

        Raises ValueError for an empty text.
        """
        if not text.split():
            raise ValueError("a word must have at least one letter, digit or mark: it is empty")
        return cls(" ".join(text.split()), 0, 0, ())

    @property
    def in_prompt(self) -> bool:
        """True if the word is in the prompt."""
        return bool(self.tokens)

    @property
    def is_text(self) -> bool:
        """True if it is text of the prompt: no special position, no word from outside."""
        return self.stop > self.start

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """The characters of the prompt that it has: one span, several for a group, none for what is
        no text of the prompt."""
        return self.parts or (((self.start, self.stop),) if self.is_text else ())

    def matches(self, text: str) -> bool:
        """Return whether its text is this one, but for case and the number of blanks."""
        return self.text.lower().split() == text.lower().split()


@dataclass(frozen=True)
class PromptWords:
    """All words of one tokenized prompt.

    ``words`` are the words and punctuation marks in order, ``specials`` the positions that are no
    text, by name. Words and specials together have every context position exactly once.
    """

    tokens: Tokens
    words: tuple[Word, ...]
    specials: tuple[Word, ...]

    @classmethod
    def of(cls, tokens: Tokens) -> PromptWords:
        """Cut a prompt into words, by the tokenizer's character offsets.

        A token belongs to the word in which it stands; words that share one are one word. Words
        that the context cut off have no entry.
        """
        spans = _spans(tokens)
        owned: list[list[int]] = [[] for _ in spans]
        for position in tokens.positions("text"):
            owned[_owner(spans, *tokens.offsets[position])].append(position)
        words: list[Word] = []
        for (start, stop), own in zip(spans, owned, strict=True):
            if not own or (tokens.cut_at is not None and stop > tokens.cut_at):
                continue
            words.append(Word(tokens.prompt[start:stop], start, stop, tuple(own)))
        cut = [pieces_of(word.text) for word in words]
        words = [
            replace(word, occurrence=_occurrence(cut, index, index + 1))
            for index, word in enumerate(words)
        ]
        specials = [
            Word(name, 0, 0, positions)
            for name, kind in SPECIAL.items()
            if (positions := tokens.positions(kind))
        ]
        # What is left of a word that the context cut in two is no word, but it was seen.
        whole = {t for word in words for t in word.tokens}
        if rest := tuple(t for t in tokens.positions("text") if t not in whole):
            specials.append(Word(CUT, 0, 0, rest))
        return cls(tokens, tuple(words), tuple(specials))

    @property
    def players(self) -> tuple[Word, ...]:
        """Words and specials: a partition of the context, as attribution needs it."""
        return (*self.words, *self.specials)

    def find(self, key: WordKey) -> Word:
        """The word, phrase, occurrence, character span or special position that ``key`` names; for
        a list of such keys all of their words as one, wherever in the prompt they stand.

        Texts compare without case. Raises KeyError, with the words there are, for a word that
        isn't in the prompt, occurs several times without saying which, or was cut off; TypeError
        for a key of another kind; ValueError for a list that is empty, names a word twice or a
        special position.
        """
        if isinstance(key, list):
            return self._find_group(key)
        if isinstance(key, slice):
            return self._find_span(key)
        text: object = key
        occurrence: int | None = None
        if isinstance(key, tuple) and len(key) == 2 and isinstance(key[1], Integral):
            text, occurrence = key[0], int(key[1])
        if not isinstance(text, str):
            raise TypeError(
                "a word is named by text, (text, occurrence) or a slice, several as one by a list "
                f"of these, not by {key!r}"
            )
        for special in self.specials:
            if text == special.text:
                return special
        found = self.occurrences(text)
        if not found:
            raise KeyError(self._absent(text))
        if occurrence is None:
            if len(found) > 1:
                raise KeyError(
                    f"{text!r} occurs {len(found)} times in the prompt: ask for one as "
                    + " or ".join(f"({text!r}, {i})" for i in range(len(found)))
                )
            return found[0]
        if not 0 <= occurrence < len(found):
            raise KeyError(
                f"{text!r} occurs {len(found)} time(s), counted from 0: there is no occurrence "
                f"{occurrence}"
            )
        return found[occurrence]

    def occurrences(self, text: str) -> list[Word]:
        """Every place of the prompt where a word or a phrase stands, in order; perhaps none."""
        places = _places(self._cut, pieces_of(text))
        return [self._join(self.words[first:end]) for first, end in places]

    @cached_property
    def _cut(self) -> list[list[str]]:
        return [pieces_of(word.text) for word in self.words]

    def _join(self, run: tuple[Word, ...]) -> Word:
        """Several words, in the prompt's order, as one."""
        if len(run) == 1:
            return run[0]
        tokens = tuple(p for word in run for p in word.tokens)
        first = self.words.index(run[0])
        together = run == self.words[first : first + len(run)]
        if together:
            start, stop = run[0].start, run[-1].stop
            occurrence = _occurrence(self._cut, first, first + len(run))
            return Word(self.tokens.prompt[start:stop], start, stop, tokens, occurrence)
        # Words side by side make one span.
        spans: list[tuple[int, int]] = []
        before = -2
        for word in run:
            index = self.words.index(word)
            start = spans.pop()[0] if index == before + 1 else word.start
            spans.append((start, word.stop))
            before = index
        text = " … ".join(self.tokens.prompt[start:stop] for start, stop in spans)
        return Word(text, spans[0][0], spans[-1][1], tokens, parts=tuple(spans))

    def _find_group(self, keys: list[WordPlace]) -> Word:
        run: list[Word] = []
        for key in keys:
            if isinstance(key, list):
                raise TypeError(f"a list of words to be taken as one holds no list: {key!r}")
            found = self.find(key)
            if not found.is_text:
                raise ValueError(
                    f"{found.text} is no text, and can't be one with words: leave it out of {keys}"
                )
            own = [word for word in self.words if set(word.tokens) <= set(found.tokens)]
            if any(word in run for word in own):
                raise ValueError(f"{found.text!r} overlaps another of the words in {keys}")
            run += own
        if not run:
            raise ValueError("a list of words to be taken as one must name at least one")
        return self._join(tuple(sorted(run, key=lambda word: word.start)))

    def _find_span(self, span: slice) -> Word:
        start, stop, stride = span.indices(len(self.tokens.prompt))
        run = tuple(w for w in self.words if w.start < stop and w.stop > start)
        text = self.tokens.prompt[start:stop]
        if stride != 1 or not run or (run[0].start, run[-1].stop) != (start, stop):
            raise KeyError(
                f"characters {start}:{stop} ({text!r}) are not whole words; the words are "
                + ", ".join(f"{w.text} {w.start}:{w.stop}" for w in self.words)
            )
        return self._join(run)

    def _absent(self, text: str) -> str:
        words = ", ".join(dict.fromkeys(w.text for w in self.words))
        cut = self.tokens.cut_at
        last = self.tokens.prompt.lower().rfind(text.lower())
        if cut is not None and text and last + len(text) > cut:
            return (
                f"{text!r} was cut off: the context holds {len(self.tokens)} tokens, so the model "
                f"never saw it; the words it saw are {words}"
            )
        how = f"{self._part_of(text)}; its words are {words}"
        if has_no_blanks(self.tokens.prompt):
            how += (
                ". Text without blanks is cut into characters, or what the tokenizer has one token "
                "for: ask for several side by side as one text, or by their place, as slice(0, 2)"
            )
        return how

    def _part_of(self, text: str) -> str:
        """Why a text that is no run of words isn't found."""
        start = self.tokens.prompt.lower().find(text.lower()) if text.strip() else -1
        run = [w for w in self.words if w.start < start + len(text) and w.stop > start]
        if start < 0 or not run:
            return f"{text!r} is not in the prompt"
        whole = self.tokens.prompt[run[0].start : run[-1].stop]
        return f"{text!r} is not in the prompt as whole words, but as a part of {whole!r}"


def _places(cut: Sequence[list[str]], pieces: list[str]) -> list[tuple[int, int]]:
    """Return the index ranges at which a text of these pieces stands among words cut into theirs:
    the first word's index, and the one after the last's."""
    places = []
    for first in range(len(cut)):
        run: list[str] = []
        end = first
        while end < len(cut) and len(run) < len(pieces):
            run += cut[end]
            end += 1
        if run == pieces:
            places.append((first, end))
    return places


def _occurrence(cut: Sequence[list[str]], first: int, end: int) -> int:
    """Return the number of earlier places that have the same text as some words side by side."""
    pieces = [piece for word in cut[first:end] for piece in word]
    return _places(cut, pieces).index((first, end))


def _spans(tokens: Tokens) -> list[tuple[int, int]]:
    """The character spans of the words: those of tokens that stand in none (control characters,
    say) are words of their own, and those that share a token are one."""
    spans = word_spans(tokens.prompt)
    for position in tokens.positions("text"):
        start, stop = tokens.offsets[position]
        if _is_blank(tokens, start, stop) and spans:
            continue
        if not any(first < stop and start < last for first, last in spans):
            spans.append((start, stop))
    joined: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        before = joined[-1] if joined else (0, 0)
        if any(start < before[1] and first < stop for start, stop in tokens.offsets):
            joined[-1] = (before[0], max(before[1], last))
        else:
            joined.append((first, last))
    return joined


def _is_blank(tokens: Tokens, start: int, stop: int) -> bool:
    return tokens.prompt[start:stop].isspace()


def _owner(spans: list[tuple[int, int]], start: int, stop: int) -> int:
    """The word that a token shares a character with; a blank's is the one that follows it, and the
    last where none does."""
    for index, (first, last) in enumerate(spans):
        if (first < stop and start < last) or (first, last) == (start, stop):
            return index
    later = [index for index, (first, _) in enumerate(spans) if first >= stop]
    return later[0] if later else len(spans) - 1
