"""A CLIP tokenizer whose vocabulary is planned: the pieces of a grammar's words.

All byte symbols are in the vocabulary, so any prompt tokenizes. Some words are two tokens, as rare
words are in the real models.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from wordlight.backends.byte_pairs import Merge, byte_symbols, merge_rules

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
    def merges(self) -> tuple[Merge, ...]:
        """The merge rules, in order of rank."""
        return merge_rules(self.pieces, _END)

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Token to id: byte symbols, the same at a word's end, the merged pieces, start and end."""
        symbols = byte_symbols()
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
