"""Measures of an attention layer that can take the place of its probabilities, on any framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from array_api_compat import array_namespace

#: ``"probabilities"`` are the softmax's. ``"scores"`` are QKᵀ·scale, before it.
#: ``"output-product"`` and ``"output-cosine"`` compare the layer's outputs A·V at each place with
#: that at one other: of cross-attention at the place whose query fits the key best, of
#: self-attention at the key's own. ``"weighted-heads"`` are probabilities times how much a head has
#: to do with the layer's output at the place, so that their mean is a weighted mean over heads.
Measure = Literal["probabilities", "scores", "output-product", "output-cosine", "weighted-heads"]


@dataclass(frozen=True, eq=False)
class AttentionParts:
    """The parts of an attention layer's computation for some rows, in float32 or wider.

    Attributes:
        scores: ``(rows, heads, places, keys)``, masked.
        values: ``(rows, heads, keys, width)``.
        projection: of the heads' outputs to the layer's, ``(heads, width, channels)``.
        shares, outputs: the probabilities of these keys and A·V at each place, ``(rows, heads,
            places, width)``, where the softmax runs over more keys than these; ``values`` is None
            then.
    """

    scores: Any
    values: Any
    projection: Any
    shares: Any = None
    outputs: Any = None

    @property
    def probabilities(self) -> Any:
        """The softmax over keys."""
        if self.shares is not None:
            return self.shares
        xp = array_namespace(self.scores)
        powers = xp.exp(self.scores - xp.max(self.scores, axis=-1, keepdims=True))
        return powers / xp.sum(powers, axis=-1, keepdims=True)

    def measured(self, measure: Measure, kind: Literal["cross", "self"]) -> Any:
        """A measure of the layer, ``(rows, heads, places, keys)``."""
        if measure == "probabilities":
            return self.probabilities
        if measure == "scores":
            xp = array_namespace(self.scores)
            # A masked key has none.
            return xp.where(xp.isfinite(self.scores), self.scores, xp.zeros_like(self.scores))
        outputs = self.probabilities @ self.values if self.outputs is None else self.outputs
        if measure == "weighted-heads":
            return self.probabilities * self._head_weights(outputs)
        if measure == "output-cosine":
            outputs = _unit(outputs)
        others = outputs if kind == "self" else self._best_outputs(outputs)
        xp = array_namespace(outputs)
        return outputs @ xp.matrix_transpose(others)

    def _best_outputs(self, outputs: Any) -> Any:
        """The outputs ``(rows, heads, keys, width)`` at the places that score each key highest."""
        xp = array_namespace(outputs)
        best = xp.argmax(self.scores, axis=-2)
        places = xp.reshape(xp.arange(self.scores.shape[-2]), (1, 1, 1, -1))
        chosen = xp.astype(xp.expand_dims(best, axis=-1) == xp.asarray(places), outputs.dtype)
        return chosen @ outputs

    def _head_weights(self, outputs: Any) -> Any:
        """``(rows, heads, places, 1)`` with a mean of 1 over heads: in proportion to max(0, ⟨a
        head's contribution to the output, the output⟩), alike where no head has any."""
        xp = array_namespace(outputs)
        contributions = outputs @ xp.expand_dims(self.projection, axis=0)
        output = xp.sum(contributions, axis=1, keepdims=True)
        along = xp.sum(contributions * output, axis=-1, keepdims=True)
        along = xp.where(along > 0, along, xp.zeros_like(along))
        mean = xp.mean(along, axis=1, keepdims=True)
        return xp.where(
            mean > 0, along / xp.where(mean > 0, mean, xp.ones_like(mean)), xp.ones_like(along)
        )


def _unit(vectors: Any) -> Any:
    xp = array_namespace(vectors)
    length = xp.sqrt(xp.sum(vectors * vectors, axis=-1, keepdims=True))
    return vectors / xp.where(length > 0, length, xp.ones_like(length))
