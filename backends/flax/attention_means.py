"""Hooks that average attention, and gradients with respect to it, on the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wordlight.backends.attention import AttentionMean, AttentionMeans, AttentionQuery, OtherKeys
from wordlight.backends.flax.attention import AttentionInputs, AttentionSite
from wordlight.backends.flax.layers import Array


@dataclass(frozen=True)
class Key:
    """The maps that are added up together: those of one grid, and of one layer and head where kept
    apart."""

    grid: tuple[int, int]
    layer: str | None
    head: int | None


@jax.tree_util.register_pytree_node_class
class AttentionSums:
    """Sums of attention maps, ``(images, pixels, tokens)`` float32 each, in the order in which they
    were seen, and of how many maps each is."""

    def __init__(self) -> None:
        self.sums: dict[Key, Array] = {}
        self.counts: dict[Key, int] = {}

    def add(self, query: AttentionQuery, site: AttentionSite, maps: Array) -> None:
        """Take in the maps ``(images, heads, pixels, tokens)`` of one layer."""
        heads = range(site.heads) if query.heads is None else query.heads
        layer = site.name if "layer" in query.keep else None
        if "head" in query.keep:
            for head in heads:
                self._add(Key(site.grid, layer, head), maps[:, head], 1)
        else:
            chosen = maps if query.heads is None else maps[:, jnp.array(query.heads)]
            self._add(Key(site.grid, layer, None), chosen.sum(1), len(heads))

    def _add(self, key: Key, total: Array, count: int) -> None:
        self.sums[key] = self.sums[key] + total if key in self.sums else total
        self.counts[key] = self.counts.get(key, 0) + count

    def plus(self, other: AttentionSums) -> AttentionSums:
        """Return the sums with those of another pass, which has the same keys, added."""
        made = AttentionSums()
        made.sums = {key: value + other.sums[key] for key, value in self.sums.items()}
        made.counts = {key: count + other.counts[key] for key, count in self.counts.items()}
        return made

    def counted(self, times: int) -> AttentionSums:
        """Return the same sums, of ``times`` times as many maps."""
        made = AttentionSums()
        made.sums = dict(self.sums)
        made.counts = {key: count * times for key, count in self.counts.items()}
        return made

    def means(self, image: int, step: int | None = None) -> list[AttentionMean]:
        """Return the averages of one image."""
        found = []
        for key, total in self.sums.items():
            count = self.counts[key]
            values = np.asarray(total[image], np.float32).T.reshape(-1, *key.grid) / count
            found.append(AttentionMean(values.astype(np.float32), count, step, key.layer, key.head))
        return found

    # What JAX needs to carry it through a compiled program.

    def tree_flatten(self) -> tuple[tuple[Array, ...], tuple[tuple[Key, int], ...]]:
        """The arrays, and all else."""
        return tuple(self.sums.values()), tuple(self.counts.items())

    @classmethod
    def tree_unflatten(cls, counts: Any, sums: Iterable[Array]) -> AttentionSums:
        """Put together again."""
        made = cls()
        made.counts = dict(counts)
        made.sums = dict(zip(made.counts, sums, strict=True))
        return made


def merge(
    sums: list[AttentionSums], steps: tuple[int, ...], query: AttentionQuery
) -> AttentionMeans:
    """The averages over the steps of one image, or each step's own where they are kept apart."""
    if "step" in query.keep:
        means = [m for step, one in zip(steps, sums, strict=True) for m in one.means(0, step)]
        return AttentionMeans(tuple(means))
    total = sums[0]
    for more in sums[1:]:
        total = total.plus(more)
    return AttentionMeans(tuple(total.means(0)))


def means_of_run(
    parts: Sequence[AttentionSums], images: int, steps: int, query: AttentionQuery
) -> list[AttentionMeans]:
    """The averages of a whole run, for each of its images.

    Args:
        parts: of some images each, on the host; ``(steps, images, ...)`` where the query keeps
            steps apart. Behind the last step and image there may be more.
        images, steps: the numbers of images and of steps.
        query: the attention that is asked for.
    """
    apart = "step" in query.keep
    sums = jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=int(apart)), *parts)
    if not apart:
        sums = sums.counted(steps)
        return [AttentionMeans(tuple(sums.means(image))) for image in range(images)]
    each = [jax.tree.map(lambda array, k=step: array[k], sums) for step in range(steps)]
    return [
        AttentionMeans(tuple(m for step, one in enumerate(each) for m in one.means(image, step)))
        for image in range(images)
    ]


class _Chosen:
    """Wants the attention that a query asks for."""

    def __init__(self, query: AttentionQuery, latent_grid: tuple[int, int]) -> None:
        self.query, self.latent_grid = query, latent_grid

    def wants(self, site: AttentionSite) -> bool:
        query = self.query
        return (
            site.kind == query.kind
            and query.wants_layer(site.name)
            and query.wants_grid(site.grid, self.latent_grid)
        )


class MeanOfAttention(_Chosen):
    """Adds up the probabilities, or what other words would get.

    ``guided``: rows come in pairs of which only the second is of the prompt.
    """

    def __init__(
        self,
        query: AttentionQuery,
        latent_grid: tuple[int, int],
        keys: OtherKeys | None = None,
        *,
        guided: bool = False,
    ) -> None:
        super().__init__(query, latent_grid)
        self.keys, self.guided = keys, guided
        self.sums = AttentionSums()

    def __call__(self, site: AttentionSite, probabilities: Array, looked: AttentionInputs) -> None:
        maps = self._maps(site, probabilities, looked)
        if self.guided:
            maps = maps.reshape(-1, 2, *maps.shape[1:])[:, 1]
        self.sums.add(self.query, site, maps)

    def _maps(self, site: AttentionSite, probabilities: Array, looked: AttentionInputs) -> Array:
        measure = self.query.measure
        if self.keys is not None:
            other = looked.scores_of if measure == "scores" else looked.shares_of
            return other(self.keys)
        if measure == "probabilities":
            return probabilities
        measured: Array = looked.parts.measured(measure, site.kind)
        return measured


class ShiftedAttention(_Chosen):
    """Adds given arrays to the probabilities, by site: at zero, the gradient with respect to them
    is that with respect to the probabilities. Without arrays it only looks."""

    def __init__(
        self,
        query: AttentionQuery,
        latent_grid: tuple[int, int],
        shifts: dict[str, Array] | None = None,
    ) -> None:
        super().__init__(query, latent_grid)
        self.shifts = shifts
        self.sites: dict[str, AttentionSite] = {}
        self.seen: dict[str, Array] = {}

    def __call__(
        self, site: AttentionSite, probabilities: Array, looked: AttentionInputs
    ) -> Array | None:
        self.sites[site.name] = site
        self.seen[site.name] = probabilities
        return None if self.shifts is None else probabilities + self.shifts[site.name]
