"""A prompt's tokens with their places, by a tokenizer of transformers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

from wordlight.backends.tokens import PromptTooLongError, Tokens

#: A span of characters in the prompt; None for a character that the prompt doesn't have.
Source = tuple[int, int] | None


@dataclass(frozen=True)
class TokenizerInput:
    """A tokenizer's input for a prompt, and the place in the prompt that each character comes from.

    ``sources`` has one entry a character of ``text``: a span of the prompt, or None for text that
    a pipeline wrote round it.
    """

    prompt: str
    text: str
    sources: tuple[Source, ...]

    @classmethod
    def of(
        cls, prompt: str, before: str = "", after: str = "", *, as_: str | None = None
    ) -> TokenizerInput:
        """The prompt between two texts, perhaps written ``as_`` another: in lower case, say."""
        inner = prompt if as_ is None else as_
        none = (None,)
        sources = none * len(before) + _sources(prompt, inner) + none * len(after)
        return cls(prompt, before + inner + after, sources)

    def source(self, start: int, stop: int) -> Source:
        """The span of the prompt that characters ``start`` to ``stop`` come from."""
        found = [source for source in self.sources[start:stop] if source is not None]
        return (min(a for a, _ in found), max(b for _, b in found)) if found else None


def tokens_of(
    tokenizer: Any,
    prompt: str | TokenizerInput,
    *,
    length: int | None = None,
    pad: Literal["left", "right"] | None = "right",
    marks: bool = True,
    allow_cut: bool = False,
) -> Tokens:
    """Return the tokens of a prompt, padded to ``length``.

    Args:
        tokenizer: a fast tokenizer of transformers, or ByT5's.
        prompt: the words, or these as a pipeline writes them for its tokenizer.
        length: the most tokens that the encoder is given; the tokenizer's own limit if None.
        pad: on which side padding is; None for no padding.
        marks: whether the tokenizer's own marks of start and end are added.
        allow_cut: whether a prompt that is too long loses its end.

    Raises:
        PromptTooLongError: a prompt that doesn't fit, unless ``allow_cut``.
        ValueError: a tokenizer that doesn't tell where tokens come from; a prompt with a learned
            word of several vectors, where the pipeline's way to write it isn't known.
    """
    written = TokenizerInput.of(prompt) if isinstance(prompt, str) else prompt
    _check_text(written.prompt)
    _refuse_learned_words(tokenizer, written.text)
    context = int(tokenizer.model_max_length) if length is None else length
    ids, spans, special = _read(tokenizer, written.text, marks)
    sources = [None if s else written.source(*span) for s, span in zip(special, spans, strict=True)]
    words = [place for place, source in enumerate(sources) if source is not None]
    cut_at = None
    if len(ids) > context:
        # The encoder keeps the beginning and the marks of the end.
        n_end = sum(special) - _n_start_marks(tokenizer, special)
        keep = [*range(context - n_end), *range(len(ids) - n_end, len(ids))]
        lost = [place for place in words if place not in keep]
        if lost:
            first = sources[lost[0]]
            assert first is not None
            cut_at = first[0]
            if not allow_cut:
                raise PromptTooLongError(
                    f"the prompt has {len(words)} tokens and the text encoder reads only "
                    f"{len(words) - len(lost)}: shorten it; {written.prompt[cut_at:]!r} would be "
                    "cut off"
                )
        ids, sources, special = ([seq[i] for i in keep] for seq in (ids, sources, special))
    kinds = _kinds(sources, special, _n_start_marks(tokenizer, special))
    texts = tuple(tokenizer.convert_ids_to_tokens(ids))
    offsets = tuple(source or (0, 0) for source in sources)
    tokens = Tokens(written.prompt, tuple(ids), texts, offsets, tuple(kinds), cut_at)
    if pad is None:
        return tokens
    padding = int(tokenizer.pad_token_id), str(tokenizer.pad_token)
    return tokens.padded(context, left=pad == "left", pad=padding)


def _check_text(prompt: str) -> None:
    try:
        prompt.encode()
    except UnicodeEncodeError:
        # Bytes of a command line that are no UTF-8, and JSON's escapes, become such.
        raise ValueError(
            f"the prompt is no text: it has halves of characters, {prompt!a}"
        ) from None


def with_all_vectors(tokenizer: Any, prompt: str) -> TokenizerInput:
    """A prompt in which learned words of several vectors are written out, as diffusers does it: the
    word, and then a word of its own for each further vector; all of them stand for the word."""
    written = TokenizerInput.of(prompt)
    for word, n_vectors in _learned_words(tokenizer).items():
        text = " ".join([word, *(f"{word}_{k}" for k in range(1, n_vectors))])
        pieces, rest = list[tuple[str, tuple[Source, ...]]](), written
        while (start := rest.text.find(word)) >= 0:
            stop = start + len(word)
            pieces.append((rest.text[:start], rest.sources[:start]))
            pieces.append((text, (rest.source(start, stop),) * len(text)))
            rest = TokenizerInput(prompt, rest.text[stop:], rest.sources[stop:])
        pieces.append((rest.text, rest.sources))
        sources = tuple(source for _, own in pieces for source in own)
        written = TokenizerInput(prompt, "".join(part for part, _ in pieces), sources)
    return written


def _learned_words(tokenizer: Any) -> dict[str, int]:
    """The learned words of several vectors that a tokenizer knows, and how many each has."""
    added = tokenizer.get_added_vocab()
    # diffusers names the further vectors of a learned word so.
    first = [word for word in added if f"{word}_1" in added]
    return {
        word: next(k for k in range(1, len(added) + 1) if f"{word}_{k}" not in added)
        for word in first
    }


def _refuse_learned_words(tokenizer: Any, text: str) -> None:
    for word in _learned_words(tokenizer):
        if re.search(rf"{re.escape(word)}(?!_\d| {re.escape(word)}_1)", text):
            raise ValueError(
                f"{word!r} is a textual-inversion word of several vectors, which the pipeline "
                "writes out otherwise than the prompt: its tokens can't be told from the text"
            )


def _read(
    tokenizer: Any, text: str, marks: bool
) -> tuple[list[int], list[tuple[int, int]], list[int]]:
    """The whole text's ids, their character spans, and 1 for each mark of start and end."""
    if not tokenizer.is_fast:
        return _read_bytes(tokenizer, text, marks)
    whole = tokenizer(
        text,
        add_special_tokens=marks,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        verbose=False,
    )
    spans = [(int(a), int(b)) for a, b in whole["offset_mapping"]]
    return list(whole["input_ids"]), spans, list(whole["special_tokens_mask"])


def _read_bytes(
    tokenizer: Any, text: str, marks: bool
) -> tuple[list[int], list[tuple[int, int]], list[int]]:
    """Return tokens and offsets by ByT5's tokenizer, which gives no offsets: a token is a byte."""
    ids = list(tokenizer(text, add_special_tokens=marks, verbose=False)["input_ids"])
    spans = [(i, i + 1) for i, letter in enumerate(text) for _ in letter.encode()]
    n_marks = len(ids) - len(spans)
    plain = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    if "ByT5" not in type(tokenizer).__name__ or ids[: len(spans)] != plain:
        raise ValueError(
            f"{type(tokenizer).__name__} gives no character offsets: load the fast tokenizer"
        )
    return ids, spans + [(0, 0)] * n_marks, [0] * len(spans) + [1] * n_marks


def _n_start_marks(tokenizer: Any, special: list[int]) -> int:
    """Return the number of marks before a text's first token."""
    if all(special):
        # Of marks alone it can't be told which are which.
        special = _read(tokenizer, "a", bool(special))[2]
    return next(i for i, is_mark in enumerate(special) if not is_mark)


def _kinds(sources: list[Source], special: list[int], n_start: int) -> list[str]:
    marks = ["start" if i < n_start else "end" for i in range(len(special))]
    return [
        mark if is_mark else "template" if source is None else "text"
        for mark, is_mark, source in zip(marks, special, sources, strict=True)
    ]


def _sources(prompt: str, written: str) -> tuple[Source, ...]:
    """Return the places in the prompt that the characters of another way to write it come from."""
    if len(written) == len(prompt):
        return tuple((i, i + 1) for i in range(len(prompt)))
    found: list[Source] = []
    blocks = SequenceMatcher(None, prompt.lower(), written.lower(), autojunk=False).get_opcodes()
    for tag, first, last, start, stop in blocks:
        if tag == "equal":
            found += [(first + i, first + i + 1) for i in range(stop - start)]
        else:
            found += [(first, last) if last > first else None] * (stop - start)
    return tuple(found)
