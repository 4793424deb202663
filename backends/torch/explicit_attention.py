"""Attention whose probabilities are part of the computation, for gradients with respect to them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor,
    AttnProcessor2_0,
    SlicedAttnProcessor,
    XFormersAttnProcessor,
)

from wordlight.backends.attention import AttentionQuery
from wordlight.backends.torch.attention_layers import (
    FeatureGrid,
    attention_layers,
    check_plain,
    describe_layers,
    scores,
)

#: Ways to compute softmax(QKᵀ·scale)V, and nothing else.
_PLAIN = (AttnProcessor, AttnProcessor2_0, SlicedAttnProcessor, XFormersAttnProcessor)

#: Takes a layer's name, grid and probabilities ``(rows, heads, places, keys)``; gives those to use.
Look = Callable[[str, tuple[int, int], torch.Tensor], torch.Tensor]


class ExplicitAttention:
    """Puts plain attention in the place of the wanted layers' own, and hands its probabilities on.

    ``look`` sees the probabilities of each layer, in float32 or wider, on their way to the values,
    and gives those that are used: the same, or others. For passes over latents of one size. Use as
    a context manager: the layers' own processors are back after the block, also after an exception
    and when putting the plain one in place fails half-way.

    Raises ValueError, on entering, for layers that compute something else than plain attention.
    """

    def __init__(self, unet: torch.nn.Module, query: AttentionQuery, look: Look) -> None:
        self._unet, self._query, self._look = unet, query, look
        self._features = FeatureGrid()
        self._grids: dict[str, tuple[int, int]] = {}
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> ExplicitAttention:
        self._query.check(describe_layers(self._unet, self._query.kind))
        wanted = {
            name: attention
            for name, attention in attention_layers(self._unet, self._query.kind).items()
            if self._query.wants_layer(name)
        }
        for name, attention in wanted.items():
            check_explicit(name, attention)
        try:
            self._features.listen(self._unet)
            for name, attention in wanted.items():
                self._shadow(attention, "get_attention_scores", self._scoring(name, attention))
                self._shadow(attention, "processor", AttnProcessor())
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Put everything back, in reverse order."""
        self._features.remove()
        while self._undo:
            self._undo.pop()()

    def _shadow(self, attention: Attention, name: str, value: object) -> None:
        own = vars(attention)
        before = {name: own[name]} if name in own else {}

        def restore() -> None:
            own.pop(name, None)
            own.update(before)

        self._undo.append(restore)
        own[name] = value

    def _scoring(
        self, name: str, attention: Attention
    ) -> Callable[[torch.Tensor, torch.Tensor, object], torch.Tensor]:
        def probabilities(
            query: torch.Tensor, key: torch.Tensor, mask: object = None
        ) -> torch.Tensor:
            if mask is not None:
                raise ValueError(f"{name} is masked: gradients of its attention aren't supported")
            heads = (-1, attention.heads)
            probs = scores(query.unflatten(0, heads), key.unflatten(0, heads), attention).softmax(
                -1
            )
            # Gradient checkpointing computes a layer again on the way back, from within.
            if name not in self._grids:
                self._grids[name] = self._features.of(name, probs.shape[2])
            return self._look(name, self._grids[name], probs).flatten(0, 1).to(query.dtype)

        return probabilities


def check_explicit(name: str, attention: Attention) -> None:
    """Raises ValueError for a layer that computes something else than plain attention."""
    check_plain(name, attention)
    kind = type(attention.processor)
    if kind not in _PLAIN:
        raise ValueError(
            f"{name} attends by {kind.__name__}: gradients with respect to attention are known of "
            + ", ".join(processor.__name__ for processor in _PLAIN)
        )
    own = (attention.inner_dim // attention.heads) ** -0.5
    if kind is AttnProcessor2_0 and not math.isclose(attention.scale, own, rel_tol=1e-6):
        raise ValueError(f"{name} names a scale of {attention.scale} and attends with {own}")


def can_be_explicit(unet: torch.nn.Module) -> bool:
    """Whether every cross-attention layer of a denoiser computes plain attention."""
    try:
        for name, attention in attention_layers(unet).items():
            check_explicit(name, attention)
    except ValueError:
        return False
    return True
