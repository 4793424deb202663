"""Batches in parts, so that memory is bounded and few programs serve all sizes of batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy.typing as npt

from wordlight.backends.flax.devices import Placement
from wordlight.backends.flax.layers import Array

#: Rows of a part that isn't full: beyond these a row costs no less.
_FEW = 8
Rows = Array | npt.NDArray[Any]


def in_parts(place: Placement, function: Callable[..., Any], most: int, *rows: Rows) -> Any:
    """A function of rows, part by part; ``most`` rows a device at once.

    Raises ValueError for arrays of different numbers of rows.
    """
    count = rows[0].shape[0]
    if any(array.shape[0] != count for array in rows):
        raise ValueError(
            "latents and all conditioning need one row each, not "
            + ", ".join(str(array.shape[0]) for array in rows)
        )
    made = [
        function(*(place.rows(_filled(array[part], part)) for array in rows))
        for part in parts_of(count, most, place.cuts)
    ]
    return jax.tree.map(lambda *parts: _joined(parts)[:count], *made)


def products(
    place: Placement,
    function: Callable[[Array], tuple[Array, Array]],
    most: int,
    tangents: Array,
) -> tuple[Array, Array]:
    """A value, and its changes along the tangents, part by part."""
    values: list[Array] = []

    def changes(some: Array) -> Array:
        value, change = function(some)
        values.append(value)
        return change

    made: Array = in_parts(place, changes, most, tangents)
    return values[0], made


def parts_of(count: int, most: int, cuts: int) -> Iterator[slice]:
    """Stretches of few sizes, so that few programs are compiled: a batch of one row or of two as it
    is, any other one in stretches of eight and of ``most`` rows on each device. The last may reach
    beyond the end."""
    if count == 1:
        yield slice(0, 1)
        return
    few, start = min(_FEW, most), 0
    while start < count:
        left = -(-(count - start) // cuts)
        size = left if left <= 2 and start == 0 else most if left >= most else few
        yield slice(start, start + cuts * size)
        start += cuts * size


def _joined(parts: Sequence[Array]) -> Array:
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def _filled(rows: Rows, part: slice) -> Rows:
    """Up to the size of a part, with the last row again."""
    lacking = part.stop - part.start - rows.shape[0]
    if not lacking:
        return rows
    return jnp.concatenate([rows, jnp.repeat(rows[-1:], lacking, axis=0)])
