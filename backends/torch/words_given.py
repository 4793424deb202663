"""A check that words that are named for a run are those that its embeddings were made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from wordlight.backends.torch.backend import TorchBackend
    from wordlight.backends.torch.recorder import Call

#: How alike a position's embedding and that of the words must be: weights on a word turn it a
#: little, another word more.
_ALIKE = 0.8
#: Positions side by side that may be others all the same.
_MOST_APART = 2


def check_words_given(backend: TorchBackend, call: Call, prompts: Sequence[str]) -> None:
    """Check words named as ``trace(pipe, prompts=[...])`` against a run.

    Raises ValueError where the pipeline was given other words, or embeddings that were made of
    other words: mark-up such as ``(red:1.3)`` shifts all that follow.
    """
    given = call.arguments.get("prompt")
    if given is not None:
        words = [given] if isinstance(given, str) else list(given)
        if words != list(prompts):
            raise ValueError(
                f"the pipeline was given the words {words}, and prompts= names {list(prompts)}: "
                "leave prompts out where the pipeline is given words"
            )
        return
    assert call.embeddings is not None
    count = len(call.embeddings)
    if not prompts or count % len(prompts):
        raise ValueError(
            f"prompts= names {len(prompts)} prompt(s), and the pipeline drew {count} image(s)"
        )
    own = call.embeddings[:: count // len(prompts)]
    for prompt, embeddings in zip(prompts, own, strict=True):
        _check(backend, prompt, embeddings)


def _check(backend: TorchBackend, prompt: str, embeddings: torch.Tensor) -> None:
    tokens = backend.model.family.tokens(backend.pipe, prompt, allow_cut=True)
    if len(tokens) != len(embeddings):
        # Said where the words are labelled.
        return
    last = max((*tokens.positions("text"), *tokens.positions("end")), default=0) + 1
    best = len(embeddings)
    for made in backend.encodings(prompt):
        if made.shape != embeddings.shape:
            continue
        similar = torch.cosine_similarity(made.float(), embeddings.float(), dim=-1)
        best = min(best, _longest_apart((similar[:last] < _ALIKE).tolist()))
    if best > _MOST_APART:
        raise ValueError(
            f"the embeddings that the pipeline was given don't fit the words {prompt!r}: at {best} "
            "positions side by side they are of other words. Name the words without mark-up, such "
            "as '(red:1.3)', exactly as they were encoded"
        )


def _longest_apart(apart: Sequence[bool]) -> int:
    longest = run = 0
    for one in apart:
        run = run + 1 if one else 0
        longest = max(longest, run)
    return longest
