"""A check that words that are named for a run are those that its embeddings were made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from wordlight.backends.torch.backend import TorchBackend
    from wordlight.backends.torch.recorder import Call

#: The most of a position's embedding that may be neither of the words nor of the empty prompt.
#: Weights on a word mix these two alone; in half precision they round by a hundredth.
_MOST_APART = 0.1


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
    for made, empty in zip(backend.encodings(prompt), backend.encodings(""), strict=True):
        if made.shape == empty.shape == embeddings.shape:
            apart = _share_of_others(embeddings, made, empty)
            best = min(best, int((apart[:last] > _MOST_APART).sum()))
    if best:
        raise ValueError(
            f"the embeddings that the pipeline was given don't fit the words {prompt!r}: at {best} "
            "positions they are of other words, or not of these alone. Name the words without "
            "mark-up, such as '(red:1.3)', exactly as they were encoded"
        )


def _share_of_others(given: torch.Tensor, words: torch.Tensor, empty: torch.Tensor) -> torch.Tensor:
    """Return of each position's embedding, ``(positions, channels)``, the share that is no mixture
    of the words' and the empty prompt's."""
    basis = torch.linalg.qr(torch.stack([words, empty], -1).double()).Q
    wanted = given.double()[..., None]
    rest = wanted - basis @ (basis.transpose(1, 2) @ wanted)
    share: torch.Tensor = rest.norm(dim=(1, 2)) / wanted.norm(dim=(1, 2))
    return share.nan_to_num(0.0)
