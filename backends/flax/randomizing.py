"""Random weights from the output down, for sanity checks."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from wordlight.backends.flax.layers import Array

_LISTED = ("up_blocks", "mid_block", "down_blocks")
_EMBEDDING = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal", out_axis=0)
#: Flax's own, by the kind of parameter.
_INITIALIZERS: Mapping[str, Any] = {
    "kernel": jax.nn.initializers.lecun_normal(),
    "embedding": _EMBEDDING,
    "scale": jax.nn.initializers.ones,
    "bias": jax.nn.initializers.zeros,
}
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
        chosen[TEXT_ENCODER] = _drawn(parameters[TEXT_ENCODER], seed, None)
    return chosen


def _drawn(state: Any, seed: int, stages: Sequence[str] | None) -> Any:
    """A network's parameters, those of some stages (all for None) drawn anew."""
    key = jax.random.key(seed)
    made = []
    for path, leaf in nnx.to_flat_state(state):
        if stages is None or _stage(path) in stages:
            name = ".".join(map(str, path))
            own = jax.random.fold_in(key, zlib.crc32(name.encode()))
            value: Array = leaf[...]
            leaf = leaf.replace(_INITIALIZERS[str(path[-1])](own, value.shape).astype(value.dtype))
        made.append((path, leaf))
    return nnx.from_flat_state(made)


def _stage(path: tuple[Any, ...]) -> str:
    if path[0] in ("conv_out", "conv_norm_out"):
        return "conv_out"
    if path[0] == "mid_block":
        return "mid_block"
    return f"{path[0]}.{path[1]}" if path[0] in _LISTED else "conv_in"


def _depth(stage: str) -> tuple[int, int]:
    blocks, _, number = stage.partition(".")
    return _LISTED.index(blocks), -int(number or 0)
