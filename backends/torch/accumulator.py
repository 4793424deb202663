"""Averages attention maps on the device, as they come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wordlight.backends.attention import AttentionMean, AttentionMeans, AttentionQuery


@dataclass(frozen=True)
class _Key:
    grid: tuple[int, ...]
    step: int | None
    layer: str | None
    head: int | None


class AttentionAccumulator:
    """Running means of attention maps, on the device, in float32.

    One sum a grid (and a kept step, layer and head), ``(images, places, keys)``: memory doesn't
    grow with the number of steps.
    """

    def __init__(self, query: AttentionQuery) -> None:
        self.query = query
        self._sums: dict[_Key, torch.Tensor] = {}
        self._counts: dict[_Key, int] = {}

    def add(
        self, layers: Sequence[str], step: int, grid: tuple[int, ...], probs: torch.Tensor
    ) -> None:
        """Take in the probabilities ``(layers, images, heads, places, keys)`` of a step."""
        self._add(layers, step, grid, probs, 1)

    def add_steps(
        self,
        layers: Sequence[str],
        steps: Sequence[int],
        grid: tuple[int, ...],
        probs: torch.Tensor,
    ) -> None:
        """Take in one image's probabilities of several steps,
        ``(layers, steps, heads, places, keys)``."""
        if "step" in self.query.keep:
            for step, own in zip(steps, probs.split(1, dim=1), strict=True):
                self._add(layers, step, grid, own, 1)
        else:
            self._add(layers, steps[0], grid, probs.sum(1, keepdim=True), len(steps))

    def _add(
        self,
        layers: Sequence[str],
        step: int,
        grid: tuple[int, ...],
        probs: torch.Tensor,
        n_steps: int,
    ) -> None:
        heads, keep = self.query.heads, self.query.keep
        # Autocast may have computed them in half precision.
        probs = probs.to(torch.promote_types(probs.dtype, torch.float32))
        if heads is not None:
            probs = probs[:, :, list(heads)]
        apart = "layer" in keep
        for layer, own in zip(layers, probs.split(1), strict=True) if apart else [(None, probs)]:
            place = (step if "step" in keep else None, layer)
            count = n_steps * own.shape[0]
            if "head" not in keep:
                key = _Key(grid, *place, None)
                self._accumulate(key, own.sum((0, 2)), count * own.shape[2])
                continue
            for index in range(own.shape[2]):
                name = heads[index] if heads is not None else index
                self._accumulate(_Key(grid, *place, name), own[:, :, index].sum(0), count)

    def _accumulate(self, key: _Key, total: torch.Tensor, count: int) -> None:
        if key in self._sums:
            self._sums[key] += total
        else:
            self._sums[key] = total
        self._counts[key] = self._counts.get(key, 0) + count

    def merge(self, other: AttentionAccumulator) -> None:
        """Take in what another one of the same query has."""
        for key, total in other._sums.items():
            self._accumulate(key, total.clone(), other._counts[key])

    @property
    def held_bytes(self) -> int:
        """Memory held by the sums."""
        return sum(s.numel() * s.element_size() for s in self._sums.values())

    def means(self, image: int) -> AttentionMeans:
        """Return the averages of one image: step by step and layer by layer where those are kept
        apart, and from the finest grid to the coarsest."""
        found = []
        steps = list(dict.fromkeys(key.step for key in self._sums))

        def place(key: _Key) -> tuple[int, int]:
            # Layers come in their own order.
            fineness = math.prod(key.grid) if key.layer is None else 0
            return steps.index(key.step), -fineness

        for key in sorted(self._sums, key=place):
            total = self._sums[key]
            values = (total[image] / self._counts[key]).T.reshape(-1, *key.grid)
            found.append(
                AttentionMean(
                    values.cpu().numpy().astype(np.float32),
                    self._counts[key],
                    key.step,
                    key.layer,
                    key.head,
                )
            )
        return AttentionMeans(tuple(found))
