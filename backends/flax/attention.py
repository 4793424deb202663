"""Attention, with one place where its probabilities are seen and may be edited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from wordlight.backends.attention import OtherKeys, shares_of_others
from wordlight.backends.flax.layers import Array, NoParameters, linear, softmax
from wordlight.backends.measures import AttentionParts


@dataclass(frozen=True)
class AttentionSite:
    """The place of an attention in the network.

    Attributes:
        name: the module's, as diffusers names it.
        kind: ``"cross"`` (to the text) or ``"self"``.
        grid: height and width of the feature map.
        heads: the number of heads.
    """

    name: str
    kind: Literal["cross", "self"]
    grid: tuple[int, int]
    heads: int


@dataclass(frozen=True, eq=False)
class AttentionInputs:
    """The inputs of an attention, and how it scores other words.

    Attributes:
        parts: scores, values and the projection of the heads, in float32.
        scores_of: gives the scores of other words, ``(batch, heads, pixels, others)``.
    """

    parts: AttentionParts
    scores_of: Callable[[OtherKeys], Array]

    def shares_of(self, others: OtherKeys) -> Array:
        """Return the probabilities that other words would get from the same softmax, of the shape
        of their scores."""
        shares: Array = shares_of_others(self.parts.scores, self.scores_of(others), others)
        return shares


class AttentionHook(Protocol):
    """Looks at attention while a network is traced: what it does becomes part of the program."""

    def wants(self, site: AttentionSite) -> bool:
        """Return whether this attention is looked at."""

    def __call__(
        self, site: AttentionSite, probabilities: Array, looked: AttentionInputs
    ) -> Array | None:
        """Takes ``(batch, heads, pixels, tokens)`` float32, rows sum to one.

        What it gives back, if anything, is used in their place. ``looked`` tells more.
        """


class WrittenOut(AttentionHook):
    """Looks at nothing, and has all attention written out."""

    def wants(self, site: AttentionSite) -> bool:
        return True

    def __call__(self, site: AttentionSite, probabilities: Array, looked: AttentionInputs) -> None:
        return None


class Attention(nnx.Module):
    """Multi-head attention of a feature map, ``(batch, pixels, channels)``, to itself or to a text.

    Args:
        name: the module's in the network.
        channels: of the feature map.
        heads: the number of heads.
        text_channels: of the text; None for self-attention.
    """

    def __init__(
        self, name: str, channels: int, heads: int, *, text_channels: int | None = None
    ) -> None:
        inner = channels // heads * heads
        seen = channels if text_channels is None else text_channels
        self.to_q = linear(channels, inner, bias=False)
        self.to_k = linear(seen, inner, bias=False)
        self.to_v = linear(seen, inner, bias=False)
        self.to_out = nnx.List([linear(inner, channels), NoParameters()])
        self.name, self.heads = name, heads
        self.kind: Literal["cross", "self"] = "self" if text_channels is None else "cross"

    def __call__(
        self,
        x: Array,
        grid: tuple[int, int],
        text: Array | None = None,
        hook: AttentionHook | None = None,
    ) -> Array:
        seen = x if text is None else text
        query, key, value = (
            self._split(part) for part in (self.to_q(x), self.to_k(seen), self.to_v(seen))
        )
        site = AttentionSite(self.name, self.kind, grid, self.heads)
        if hook is not None and hook.wants(site):
            attended = self._watched(query, key, value, site, hook)
        else:
            attended = jax.nn.dot_product_attention(query, key, value)
        merged: Array = self.to_out[0](attended.reshape(*x.shape[:2], -1))
        return merged

    def _split(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.heads, -1)

    def _watched(
        self, query: Array, key: Array, value: Array, site: AttentionSite, hook: AttentionHook
    ) -> Array:
        scores = attention_scores(query, key)

        def scores_of(others: OtherKeys) -> Array:
            keys = self._split(self.to_k(others.embeddings))
            return attention_scores(query, jnp.broadcast_to(keys, (query.shape[0], *keys.shape)))

        probabilities = softmax(scores)
        out: Any = self.to_out[0]
        kernel = out.kernel[...].astype(jnp.float32)
        parts = AttentionParts(
            scores,
            value.astype(jnp.float32).transpose(0, 2, 1, 3),
            kernel.reshape(self.heads, -1, kernel.shape[-1]),
        )
        edited = hook(site, probabilities, AttentionInputs(parts, scores_of))
        used = probabilities if edited is None else edited
        return mean_of_values(used, value)


def attention_scores(query: Array, key: Array) -> Array:
    """QKᵀ/√d of ``(batch, length, heads, d)``, always in float32: ``(batch, heads, q, k)``."""
    products = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    scores: Array = products * query.shape[-1] ** -0.5
    return scores


def mean_of_values(probabilities: Array, value: Array) -> Array:
    """The mean of ``(batch, length, heads, d)`` by ``(batch, heads, q, length)``, in the values'
    precision: ``(batch, q, heads, d)``."""
    attended: Array = jnp.einsum("bhqk,bkhd->bqhd", probabilities.astype(value.dtype), value)
    return attended
