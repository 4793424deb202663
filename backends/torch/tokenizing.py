"""A prompt's tokens with their places, by the pipeline's own tokenizer."""

from __future__ import annotations

from typing import Any

from wordlight.backends.tokenizing import tokens_of
from wordlight.backends.tokens import Tokens


def tokenize(pipe: Any, prompt: str, *, allow_cut: bool = False) -> Tokens:
    """Tokens padded to the context; raises as ``tokens_of`` does."""
    return tokens_of(pipe.tokenizer, prompt, allow_cut=allow_cut)
