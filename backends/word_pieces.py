"""A CLIP tokenizer whose vocabulary is planned: the pieces of a grammar's words.

All byte symbols are in the vocabulary, so any prompt tokenizes. Some words are two tokens, as rare
words are in the real models.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

_END = "</w>"
_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"


@dataclass(frozen=True)
class WordPieces:
    """Byte-pair encoding that cuts some words as planned.

    ``pieces`` are words as the pieces they are to be cut into (words of one letter are tokens
    anyway); ``context`` is how many tokens a prompt is padded to.
    """

    pieces: tuple[tuple[str, ...], ...]
    context: int

    @cached_property
    def merges(self) -> tuple[tuple[str, str], ...]:
        """The merge rules, in order of rank.

        A word that earlier rules already join as wanted is never touched by later ones, so adding
        the rules word by word keeps every earlier word as it is.
        """
        found: list[tuple[str, str]] = []
        for pieces in self.pieces:
            wanted = [*pieces[:-1], pieces[-1] + _END]
            while (got := _encode("".join(pieces), found)) != wanted:
                found.append(_next_merge(pieces, got))
        return tuple(found)

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Token to id: byte symbols, the same at a word's end, the merged pieces, start and end."""
        symbols = _byte_symbols()
        joined = ("".join(pair) for pair in self.merges)
        tokens = [*symbols, *(s + _END for s in symbols), *joined, _BOS, _EOS]
        return {token: index for index, token in enumerate(dict.fromkeys(tokens))}

    @property
    def bos_id(self) -> int:
        """The id of the start."""
        return len(self.vocabulary) - 2

    @property
    def eos_id(self) -> int:
        """The id of the end, which is the padding too."""
        return len(self.vocabulary) - 1

    def build_tokenizer(self) -> CLIPTokenizer:
        """Return the tokenizer, ready to be saved beside a model."""
        from transformers import CLIPTokenizer

        return CLIPTokenizer(
            vocab=self.vocabulary,
            merges=list(self.merges),
            unk_token=_EOS,
            bos_token=_BOS,
            eos_token=_EOS,
            pad_token=_EOS,
            model_max_length=self.context,
        )


def _next_merge(pieces: tuple[str, ...], got: list[str]) -> tuple[str, str]:
    """Return the first two neighbours that lie within one of the wanted pieces."""
    starts = [0]
    for piece in pieces:
        starts.append(starts[-1] + len(piece))
    place = 0
    for left, right in pairwise(got):
        place += len(left)
        if place not in starts:
            return left, right
    raise AssertionError(f"{pieces} can't be cut as wanted: {got}")


def _byte_symbols() -> list[str]:
    """Return the 256 printable characters that byte-level encoding writes the bytes with."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spare = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


def _encode(word: str, merges: list[tuple[str, str]]) -> list[str]:
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    symbols = [*word[:-1], word[-1] + _END]
    while True:
        pairs = [pair for pair in pairwise(symbols) if pair in ranks]
        if not pairs:
            return symbols
        best = min(pairs, key=ranks.__getitem__)
        at = next(i for i in range(len(symbols)) if tuple(symbols[i : i + 2]) == best)
        symbols[at : at + 2] = ["".join(best)]
