"""The tokenizer of ``scenes``: CLIP's byte-pair encoding with a vocabulary of the grammar's words.

All byte symbols are in the vocabulary, so any prompt tokenizes. Some words are two tokens
("triangle", "background", every plural), as rare words are in the real models.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from wordlight.backends.byte_pairs import Merge, byte_symbols, merge_rules

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


@cache
def merges() -> tuple[Merge, ...]:
    """The merge rules, in order of rank."""
    return merge_rules(_PIECES, _END)


@cache
def vocabulary() -> dict[str, int]:
    """Token to id: byte symbols, the same at a word's end, the merged pieces, start and end."""
    symbols = byte_symbols()
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
