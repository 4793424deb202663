"""Byte-pair vocabularies made by hand, for embedded and for tiny models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

#: A merge rule: two neighbouring symbols that become one.
Merge = tuple[str, str]


def byte_symbols() -> list[str]:
    """The 256 printable characters that byte-level encoding writes the bytes with."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spare = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


def merge_rules(words: Sequence[Sequence[str]], end: str = "") -> tuple[Merge, ...]:
    """Merge rules, in order of rank, that cut each word into the pieces it is given as.

    ``end`` is what the vocabulary writes behind a word's last character (CLIP: ``</w>``). A word
    that earlier rules already join as wanted is never touched by later ones, so adding the rules
    word by word keeps every earlier word as it is.
    """
    found: list[Merge] = []
    for pieces in words:
        wanted = [*pieces[:-1], pieces[-1] + end]
        while (got := _encode("".join(pieces), found, end)) != wanted:
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


def _encode(word: str, merges: list[Merge], end: str) -> list[str]:
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    symbols = [*word[:-1], word[-1] + end]
    while True:
        pairs = [pair for pair in pairwise(symbols) if pair in ranks]
        if not pairs:
            return symbols
        best = min(pairs, key=ranks.__getitem__)
        at = next(i for i in range(len(symbols)) if tuple(symbols[i : i + 2]) == best)
        symbols[at : at + 2] = ["".join(best)]
