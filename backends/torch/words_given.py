"""A check that words that are named for a run are those that its embeddings were made of.

Weights on words are heeded: of a word that counts for more, or less, the embedding is moved from
the empty prompt's, or to it, and a word that counts for less is blended, at all positions, with the
prompt in which nothing attends to it (Compel's way).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection

if TYPE_CHECKING:
    from wordlight.backends.torch.backend import TorchBackend
    from wordlight.backends.torch.recorder import Call

#: The most of a position's embedding that may be neither of the words nor of the empty prompt, and
#: what of it may be rounding: in half precision a hundredth.
_MOST_APART, _ROUNDING = 0.1, 0.02
#: The most phrases of one prompt that count for less.
_MOST_PHRASES = 8


def check_words_given(backend: TorchBackend, call: Call, prompts: Sequence[str]) -> None:
    """Check words named as ``trace(pipe, prompts=[...])`` against a run.

    Raises ValueError where the pipeline was given other words, or embeddings that were made of
    other words: mark-up such as ``(red:1.3)`` shifts all that follow.
    """
    if call.prompts is not None:
        if call.prompts != list(prompts):
            raise ValueError(
                f"the pipeline was given the words {call.prompts}, and prompts= names "
                f"{list(prompts)}: leave prompts out where the pipeline is given words"
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
    best, layer = len(embeddings), None
    for index, basis in enumerate(
        zip(backend.encodings(prompt), backend.encodings(""), strict=True)
    ):
        if all(part.shape == embeddings.shape for part in basis):
            n_others = _n_of_others(_share_of_others(embeddings, basis)[:last])
            if n_others < best:
                best, layer = n_others, index
    if best and layer is not None and backend.model.family.feature_maps:
        n_text = max(tokens.positions("text"), default=0) + 1
        if _counts_for_less(backend, prompt, embeddings[:last], layer, n_text):
            return
    if best:
        raise ValueError(
            f"the embeddings that the pipeline was given don't fit the words {prompt!r}: at {best} "
            "positions they are of other words, or not of these alone. Name the words without "
            "mark-up, such as '(red:1.3)', exactly as they were encoded"
        )


def _n_of_others(shares: torch.Tensor) -> int:
    return int((shares > _MOST_APART).sum())


def _counts_for_less(
    backend: TorchBackend, prompt: str, given: torch.Tensor, layer: int, n_text: int
) -> bool:
    """Return whether embeddings ``(positions, channels)`` are those of a prompt, whose text has the
    first ``n_text`` positions, some phrases of which count for less.

    The text encoder looks back alone, so the first position that isn't explained yet begins such a
    phrase; its end is the one that explains the positions behind it furthest.
    """

    def encoded(text: str) -> torch.Tensor:
        made: torch.Tensor = list(backend.encodings(text))[layer][: len(given)]
        return made

    encoders = [
        part
        for part in backend.pipe.components.values()
        if isinstance(part, (CLIPTextModel, CLIPTextModelWithProjection))
    ]
    basis = [encoded(prompt), encoded("")]
    shares = _share_of_others(given, basis)
    for _ in range(_MOST_PHRASES if encoders else 0):
        if not _n_of_others(shares):
            return True
        start = _first_of_others(shares)
        found: list[tuple[int, float, torch.Tensor, torch.Tensor]] = []
        for stop in range(start + 1, n_text + 1):
            with _unseen(encoders, slice(start, stop)):
                phrase = encoded(prompt)
            left = _share_of_others(given, [*basis, phrase])
            found.append((_first_of_others(left), -float(left.sum()), phrase, left))
        furthest = max(found, key=lambda one: one[:2], default=(start, 0.0, basis[0], shares))
        if furthest[0] == start:
            return False
        basis, shares = [*basis, furthest[2]], furthest[3]
    return not _n_of_others(shares)


def _first_of_others(shares: torch.Tensor) -> int:
    """The first position that isn't explained, or their number."""
    return next((place for place, share in enumerate(shares) if share > _ROUNDING), len(shares))


@contextmanager
def _unseen(encoders: Sequence[torch.nn.Module], positions: slice) -> Iterator[None]:
    """Have text encoders attend to nothing at some positions."""

    def hide(
        _module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        ids = args[0] if args else kwargs["input_ids"]
        mask = torch.ones_like(ids)
        mask[:, positions] = 0
        return args[:1], {**kwargs, "attention_mask": mask}

    with ExitStack() as stack:
        for encoder in encoders:
            stack.callback(encoder.register_forward_pre_hook(hide, with_kwargs=True).remove)
        yield


def _share_of_others(given: torch.Tensor, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return of each position's embedding, ``(positions, channels)``, the share that is no mixture
    of those that it may be made of."""
    basis = torch.linalg.qr(torch.stack(list(parts), -1).double()).Q
    wanted = given.double()[..., None]
    rest = wanted - basis @ (basis.transpose(1, 2) @ wanted)
    share: torch.Tensor = rest.norm(dim=(1, 2)) / wanted.norm(dim=(1, 2))
    return share.nan_to_num(0.0)
