"""The tokenizer of ``scenes``: CLIP's byte-pair encoding with a vocabulary of the grammar's words.

Some words are two tokens ("triangle", "background", every plural), as rare words are in the real
models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wordlight.backends.word_pieces import WordPieces

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

CONTEXT = 32

#: Words as the pieces they are to be cut into.
TOKENS = WordPieces(
    tuple(
        tuple(entry.split("+"))
        for entry in (
            "an two three small large red green blue yellow purple orange black white gray "
            "circle square tri+angle cross circle+s square+s tri+angle+s cross+es back+ground "
            "on and to the left right of above below"
        ).split()
    ),
    CONTEXT,
)
BOS_ID, EOS_ID = TOKENS.bos_id, TOKENS.eos_id


def vocabulary() -> dict[str, int]:
    """Return each token's id."""
    return TOKENS.vocabulary


def build_tokenizer() -> CLIPTokenizer:
    """Return the tokenizer, ready to be saved beside the model."""
    return TOKENS.build_tokenizer()
