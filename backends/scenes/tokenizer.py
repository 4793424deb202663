"""The tokenizer of ``scenes``: CLIP's byte-pair encoding with a vocabulary of the grammar's words.

All byte symbols are in the vocabulary, so any prompt tokenizes. Some words are two tokens
("triangle", "background", every plural), as rare words are in the real models.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

CONTEXT = 32
_END = "</w>"
_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"

#: Words as the pieces they are to be cut into; words of one letter are tokens anyway.
_PIECES: tuple[tuple[str, ...], ...] = tuple(
    tuple(entry.split("+"))
    for entry in (
        "an two three small large red green blue yellow purple orange black white gray "
        "circle square tri+angle cross circle+s square+s tri+angle+s cross+es back+ground "
        "on and to the left right of above below"
    ).split()
)


def _byte_symbols() -> list[str]:
    """The 256 printable characters that byte-level encoding writes the bytes with."""
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


@cache
def merges() -> tuple[tuple[str, str], ...]:
    """The merge rules, in order of rank.

    A word that earlier rules already join as wanted is never touched by later ones, so adding the
    rules word by word keeps every earlier word as it is.
    """
    found: list[tuple[str, str]] = []
    for pieces in _PIECES:
        wanted = [*pieces[:-1], pieces[-1] + _END]
        while (got := _encode("".join(pieces), found)) != wanted:
            starts = [0]
            for piece in pieces:
                starts.append(starts[-1] + len(piece))
            place = 0
            for left, right in pairwise(got):
                place += len(left)
                if place not in starts:
                    found.append((left, right))
                    break
            else:
                raise AssertionError(f"{pieces} can't be cut as wanted: {got}")
    return tuple(found)


@cache
def vocabulary() -> dict[str, int]:
    """Token to id: byte symbols, the same at a word's end, the merged pieces, start and end."""
    symbols = _byte_symbols()
    joined = ("".join(pair) for pair in merges())
    tokens = [*symbols, *(s + _END for s in symbols), *joined, _BOS, _EOS]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


BOS_ID = len(vocabulary()) - 2
EOS_ID = len(vocabulary()) - 1


def build_tokenizer() -> CLIPTokenizer:
    """The tokenizer, ready to be saved beside the model."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer(
        vocab=vocabulary(),
        merges=list(merges()),
        unk_token=_EOS,
        bos_token=_BOS,
        eos_token=_EOS,
        pad_token=_EOS,
        model_max_length=CONTEXT,
    )
