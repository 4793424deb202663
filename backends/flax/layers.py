"""The layers that all networks are built of, with PyTorch's conventions.

Feature maps are ``(batch, height, width, channels)``. Attributes bear the names that diffusers and
transformers give them, so that a parameter's path is its name in a checkpoint. Nothing is drawn
when a network is made: its parameters are zeros until a checkpoint fills them.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

Array = jax.Array


class _NoDraw:
    """Stands for random numbers where none are drawn: making them would be most of the work."""

    def params(self) -> None:
        return None


_RNGS: Any = _NoDraw()


def _zeros(_key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32, **_: Any) -> Array:
    return jnp.zeros(shape, dtype)


def linear(inputs: int, outputs: int, *, bias: bool = True) -> nnx.Linear:
    """A dense layer."""
    return nnx.Linear(inputs, outputs, use_bias=bias, kernel_init=_zeros, rngs=_RNGS)


def convolution(
    inputs: int, outputs: int, size: int, *, stride: int = 1, padding: int | None = None
) -> nnx.Conv:
    """A convolution with the same padding on all sides, half its size if None."""
    pad = size // 2 if padding is None else padding
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        strides=stride,
        # Never "SAME": with a stride it pads one side alone.
        padding=((pad, pad), (pad, pad)),
        kernel_init=_zeros,
        rngs=_RNGS,
    )


def group_norm(groups: int, channels: int, epsilon: float) -> nnx.GroupNorm:
    """Normalises groups of channels over the whole picture."""
    # The fast variance, E[x²] - E[x]², cancels where the mean is large.
    return nnx.GroupNorm(
        channels,
        groups,
        epsilon=epsilon,
        use_fast_variance=False,
        scale_init=_zeros,
        rngs=_RNGS,
    )


def layer_norm(channels: int, epsilon: float = 1e-5) -> nnx.LayerNorm:
    """Normalises each position's channels."""
    return nnx.LayerNorm(
        channels, epsilon=epsilon, use_fast_variance=False, scale_init=_zeros, rngs=_RNGS
    )


def embedding(entries: int, channels: int) -> nnx.Embed:
    """A table of vectors."""
    return nnx.Embed(entries, channels, embedding_init=_zeros, rngs=_RNGS)


def gelu(x: Array) -> Array:
    """PyTorch's, by the error function; JAX's own default is an approximation by tanh."""
    return jax.nn.gelu(x, approximate=False)


@jax.jit
def softmax(x: Array) -> Array:
    """Over the last axis. It is compiled on its own, so that ``rescale_rule`` sees it as one."""
    return jax.nn.softmax(x, axis=-1)


class NoParameters(nnx.Module):
    """Holds the place of a layer without parameters (dropout, say) in a list of layers."""


class Convolution(nnx.Module):
    """A convolution that a checkpoint keeps under the name ``conv``."""

    def __init__(
        self, inputs: int, outputs: int, size: int, *, stride: int = 1, padding: int | None = None
    ) -> None:
        self.conv = convolution(inputs, outputs, size, stride=stride, padding=padding)

    def __call__(self, x: Array) -> Array:
        convolved: Array = self.conv(x)
        return convolved


def double(x: Array, height: int | None = None, width: int | None = None) -> Array:
    """Nearest-neighbour enlargement by two, or to a given size: twice, or one less."""
    return x.repeat(2, axis=1).repeat(2, axis=2)[:, :height, :width]
