"""Queries for attention, and the averages that come back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace

from wordlight.backends.measures import Measure

AXES = ("step", "layer", "head")


@dataclass(frozen=True)
class Layer:
    """One attention layer: the module's name in the denoiser and its number of heads."""

    name: str
    heads: int


@dataclass(frozen=True)
class AttentionQuery:
    """A choice of attention maps, and of the axes along which they are kept apart.

    Attributes:
        layers: names, or beginnings of names, of layers (``"up_blocks"``,
            ``"mid_block.attentions.0"``); all where None.
        without_layers: layers left out, by the same kind of name.
        heads: head numbers; all where None.
        factors: only layers whose grid is smaller than the latents' by one of these, along a
            side: 1, 2, 4, 8, ...
        keep: those of ``"step"``, ``"layer"``, ``"head"`` that are kept apart instead of averaged.
        kind: ``"cross"``, attention to the text, or ``"self"``, of the image's places to each
            other: a map of each place as key, row by row, in the place of each token.
        measure: the quantity taken of a layer: its probabilities, or see ``Measure``.
    """

    layers: tuple[str, ...] | None = None
    without_layers: tuple[str, ...] = ()
    heads: tuple[int, ...] | None = None
    factors: tuple[int, ...] | None = None
    keep: tuple[str, ...] = ()
    kind: Literal["cross", "self"] = "cross"
    measure: Measure = "probabilities"

    def __post_init__(self) -> None:
        if unknown := set(self.keep) - set(AXES):
            raise ValueError(f"unknown axes {sorted(unknown)}; there are {', '.join(AXES)}")
        if self.measure not in get_args(Measure):
            known = ", ".join(map(repr, get_args(Measure)))
            raise ValueError(f"measure must be one of {known}, not {self.measure!r}")
        if self.heads is not None and (not self.heads or min(self.heads) < 0):
            raise ValueError("heads must name at least one head, by numbers from 0")
        if self.factors is not None and (not self.factors or min(self.factors) < 1):
            raise ValueError("factors must name at least one factor, 1 or more")

    def wants_layer(self, name: str) -> bool:
        """Return whether a layer of this name is asked for (its factor is judged separately)."""
        asked = self.layers is None or any(_begins(name, start) for start in self.layers)
        return asked and not any(_begins(name, start) for start in self.without_layers)

    def wants_grid(self, grid: Sequence[int], latent_grid: Sequence[int]) -> bool:
        """Return whether a layer with this grid, ``([frames,] height, width)``, is asked for."""
        if self.factors is None:
            return True
        # Odd sides are rounded on the way down, so the factor is told from both sides together.
        pixels = latent_grid[-2] * latent_grid[-1] / (grid[-2] * grid[-1])
        return 2 ** round(math.log2(pixels) / 2) in self.factors

    def check(self, layers: Iterable[Layer]) -> None:
        """Raises ValueError when nothing of the kind exists in a model with these layers."""
        layers = tuple(layers)
        names = ", ".join(layer.name for layer in layers)
        for start in (*(self.layers or ()), *self.without_layers):
            if not any(_begins(layer.name, start) for layer in layers):
                raise ValueError(f"no {self.kind}-attention layer {start!r}; there are {names}")
        wanted = [layer for layer in layers if self.wants_layer(layer.name)]
        if not wanted:
            raise ValueError(f"no layer is left; there are {names}")
        for head in self.heads or ():
            if head >= min(layer.heads for layer in wanted):
                raise ValueError(
                    f"head {head} doesn't exist in every chosen layer; the numbers of heads are "
                    + ", ".join(f"{layer.name}: {layer.heads}" for layer in wanted)
                )


class OtherKeys(NamedTuple):
    """Words that the prompt needn't have, each where it would stand in it.

    Attributes:
        embeddings: ``(others, channels)``, an array of the backend's.
        displaced: ``(tokens, others)`` float32, 1 where a token of the prompt makes room for one.
        together: ``(others, others)`` float32, 1 where two are of one word.
        own: for each of the embeddings the position of the prompt's token that it is, or None;
            none at all where it is left out.
    """

    embeddings: Any
    displaced: npt.NDArray[np.float32]
    together: npt.NDArray[np.float32]
    own: tuple[int | None, ...] = ()

    @property
    def positions(self) -> tuple[int | None, ...]:
        """``own``, one an embedding."""
        return self.own or (None,) * int(self.embeddings.shape[0])

    @property
    def n_carried(self) -> int:
        """The number of them that are no tokens of the prompt."""
        return self.positions.count(None)

    @classmethod
    def of(
        cls,
        embeddings: Any,
        words: Iterable[tuple[Sequence[int], Sequence[int]]],
        tokens: int,
        own: Sequence[int | None] = (),
    ) -> OtherKeys:
        """Words one by one: which of the embeddings each has, and which positions of the prompt,
        of so many tokens, it stands in place of (none: beside them all). ``own`` says which are the
        prompt's own tokens, at which position.

        Raises ValueError where an embedding isn't of exactly one word.
        """
        count = int(embeddings.shape[0])
        displaced = np.zeros((tokens, count), np.float32)
        together = np.zeros((count, count), np.float32)
        for word, places in words:
            together[np.ix_(list(word), list(word))] += 1
            displaced[np.ix_(list(places), list(word))] = 1
        if not count or not (together.diagonal() == 1).all():
            raise ValueError("each of the embeddings must be of exactly one word")
        return cls(embeddings, displaced, together, tuple(own))


#: Beyond e^80 a word has all of the attention in any case, and float32 soon ends.
_LARGEST_SCORE = 80.0


def shares_of_others(own: Any, others: Any, keys: OtherKeys) -> Any:
    """Return the probabilities that other keys would get from a softmax over a prompt in which they
    stood.

    Args:
        own: scores of the prompt's tokens, ``(..., tokens)``, of any framework.
        others: scores of the other keys, ``(..., others)``.
        keys: the layer they belong to; its two matrices as arrays of that framework.

    Returns:
        ``(..., others)``, from 0 to 1.
    """
    xp = array_namespace(own)
    most = xp.max(own, axis=-1, keepdims=True)
    parts = xp.exp(own - most)
    total = xp.sum(parts, axis=-1, keepdims=True)
    return shares_beside(parts / total, 0.0, others - most - xp.log(total), keys)


def shares_beside(probabilities: Any, rest: Any, relative: Any, keys: OtherKeys) -> Any:
    """The same, where the softmax runs over more than the prompt's tokens.

    Args:
        probabilities: of the prompt's tokens, ``(..., tokens)``.
        rest: the share of everything else, ``(..., 1)``.
        relative: scores of the other keys, less the logarithm of the sum over everything,
            ``(..., others)``.
        keys: the layer they belong to.

    Returns:
        ``(..., others)``, from 0 to 1.
    """
    xp = array_namespace(relative)
    new = xp.exp(xp.minimum(relative, xp.full_like(relative, _LARGEST_SCORE)))
    staying = 1.0 - xp.astype(keys.displaced, relative.dtype)
    together = xp.astype(keys.together, relative.dtype)
    beside = rest + xp.matmul(probabilities, staying) + xp.matmul(new, together)
    return new / xp.maximum(beside, xp.full_like(beside, 1e-30))


def _begins(name: str, start: str) -> bool:
    return name == start or name.startswith(start + ".")


@dataclass(frozen=True, eq=False)
class AttentionMean:
    """The mean of ``count`` maps of one grid: ``values`` is ``(tokens, height, width)`` float32, of
    a video ``(tokens, frames, height, width)``.

    Of self-attention it is ``(places, height, width)``, with a map of each place of the grid as
    key, row by row: ``values[k, y, x]`` is what the query at (y, x) gives to place k, so that they
    sum to one over k.

    ``step``, ``layer`` and ``head`` say which it is, where they were kept apart.
    """

    values: npt.NDArray[np.float32]
    count: int
    step: int | None = None
    layer: str | None = None
    head: int | None = None


@dataclass(frozen=True, eq=False)
class AttentionMeans:
    """All averages of one run: one a grid, and a kept step, layer and head."""

    means: tuple[AttentionMean, ...]

    def __post_init__(self) -> None:
        if not self.means:
            raise ValueError("no attention was seen: the chosen layers have no such grid")

    @property
    def tokens(self) -> int:
        """The length of the context; of self-attention, the first grid's places."""
        return int(self.means[0].values.shape[0])

    def values_along(self, axis: str) -> list[Any]:
        """The different values of a kept axis, in the order in which they were seen."""
        return list(dict.fromkeys(getattr(mean, axis) for mean in self.means))
