"""Which attention is asked for, and the averages that come back."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

AXES = ("step", "layer", "head")


@dataclass(frozen=True)
class Layer:
    """One attention layer: the module's name in the denoiser and its number of heads."""

    name: str
    heads: int


@dataclass(frozen=True)
class AttentionQuery:
    """Which attention maps are wanted, and along which axes they are kept apart.

    Attributes:
        layers: names, or beginnings of names, of layers (``"up_blocks"``,
            ``"mid_block.attentions.0"``); all where None.
        without_layers: layers left out, by the same kind of name.
        heads: head numbers; all where None.
        factors: only layers whose grid is smaller than the latents' by one of these, along a
            side: 1, 2, 4, 8, ...
        keep: which of ``"step"``, ``"layer"``, ``"head"`` are kept apart instead of averaged.
        kind: ``"cross"``, attention to the text, or ``"self"``, of the image's places to each
            other: a map of each place as key, row by row, in the place of each token.
    """

    layers: tuple[str, ...] | None = None
    without_layers: tuple[str, ...] = ()
    heads: tuple[int, ...] | None = None
    factors: tuple[int, ...] | None = None
    keep: tuple[str, ...] = ()
    kind: Literal["cross", "self"] = "cross"

    def __post_init__(self) -> None:
        if unknown := set(self.keep) - set(AXES):
            raise ValueError(f"unknown axes {sorted(unknown)}; there are {', '.join(AXES)}")
        if self.heads is not None and (not self.heads or min(self.heads) < 0):
            raise ValueError("heads must name at least one head, by numbers from 0")
        if self.factors is not None and (not self.factors or min(self.factors) < 1):
            raise ValueError("factors must name at least one factor, 1 or more")

    def wants_layer(self, name: str) -> bool:
        """Whether a layer of this name is asked for (its factor is judged separately)."""
        asked = self.layers is None or any(_begins(name, start) for start in self.layers)
        return asked and not any(_begins(name, start) for start in self.without_layers)

    def wants_grid(self, grid: tuple[int, int], latent_grid: tuple[int, int]) -> bool:
        """Whether a layer with this grid is asked for."""
        if self.factors is None:
            return True
        # Odd sides are rounded on the way down, so the factor is told from both sides together.
        pixels = latent_grid[0] * latent_grid[1] / (grid[0] * grid[1])
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


def _begins(name: str, start: str) -> bool:
    return name == start or name.startswith(start + ".")


@dataclass(frozen=True, eq=False)
class AttentionMean:
    """The mean of ``count`` maps of one grid: ``values`` is ``(tokens, height, width)`` float32.

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
