"""Random weights from the output down, for sanity checks."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from wordlight.backends.flax.layers import Array

_LISTED = ("up_blocks", "mid_block", "down_blocks")
#: Of a normal distribution that is cut off at twice its standard deviation, what is left of that.
_CUT = 0.87962566103423978
TEXT_ENCODER = "text_encoder"


def stages_of(unet: Any) -> tuple[str, ...]:
    """The parts of a model, from the output down to the input, the text encoder last.

    ``"conv_out"`` has its norm with it; ``"conv_in"`` all that is left.
    """
    found = {_stage(path) for path, _ in nnx.to_flat_state(unet)}
    blocks = sorted((stage for stage in found if "block" in stage), key=_depth)
    return ("conv_out", *blocks, "conv_in", TEXT_ENCODER)


def randomize(parameters: Mapping[str, Any], stages: Sequence[str], seed: int) -> dict[str, Any]:
    """Parameters with those of some stages drawn anew, as Flax initialises such layers.

    Each depends on the seed and on its own name alone.
    """
    chosen = {**parameters, "unet": _drawn(parameters["unet"], seed, stages)}
    if TEXT_ENCODER in stages:
        for part in parameters:
            if part.startswith(TEXT_ENCODER):
                chosen[part] = _drawn(parameters[part], seed, None)
    return chosen


def _drawn(state: Any, seed: int, stages: Sequence[str] | None) -> Any:
    """A network's parameters, those of some stages (all for None) drawn anew."""
    key = jax.random.key(seed)
    made = []
    for path, leaf in nnx.to_flat_state(state):
        if stages is None or _stage(path) in stages:
            name = ".".join(map(str, path))
            own = jax.random.fold_in(key, zlib.crc32(name.encode()))
            value = _initial(str(path[-1]), own, leaf[...].shape)
            leaf = leaf.replace(jnp.asarray(value, leaf[...].dtype))
        made.append((path, leaf))
    return nnx.from_flat_state(made)


def _initial(kind: str, key: Array, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """A fresh parameter, by Flax's default for its kind."""
    if kind in ("bias", "scale"):
        return np.full(shape, float(kind == "scale"), np.float32)
    count = math.prod(shape)
    # Of few lengths, since each is a program of its own.
    draw = np.asarray(_normal(key, 1 << (count - 1).bit_length(), cut=kind == "kernel"))
    # All dimensions of a kernel but the last are inputs; an embedding's are its channels.
    inputs = count // shape[-1] if kind == "kernel" else shape[-1]
    spread = 1.0 / (math.sqrt(inputs) * (_CUT if kind == "kernel" else 1.0))
    drawn: npt.NDArray[np.float32] = draw[:count].reshape(shape) * np.float32(spread)
    return drawn


@partial(jax.jit, static_argnames=("count", "cut"))
def _normal(key: Array, count: int, *, cut: bool) -> Array:
    if cut:
        return jax.random.truncated_normal(key, -2.0, 2.0, (count,))
    return jax.random.normal(key, (count,))


def _stage(path: tuple[Any, ...]) -> str:
    if path[0] in ("conv_out", "conv_norm_out"):
        return "conv_out"
    if path[0] == "mid_block":
        return "mid_block"
    return f"{path[0]}.{path[1]}" if path[0] in _LISTED else "conv_in"


def _depth(stage: str) -> tuple[int, int]:
    blocks, _, number = stage.partition(".")
    return _LISTED.index(blocks), -int(number or 0)
