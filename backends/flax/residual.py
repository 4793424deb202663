"""The residual block of UNet and autoencoder."""

from __future__ import annotations

import jax
from flax import nnx

from wordlight.backends.flax.layers import Array, convolution, group_norm, linear


class ResidualBlock(nnx.Module):
    """Two normalised convolutions and a way round them (diffusers' ``ResnetBlock2D``).

    Args:
        inputs, outputs: channels.
        time_channels: of the time embedding; None where the block isn't told the time.
        groups, epsilon: of the normalisations.
        scale: the divisor of the sum.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        time_channels: int | None,
        groups: int,
        epsilon: float,
        scale: float = 1.0,
    ) -> None:
        self.norm1 = group_norm(groups, inputs, epsilon)
        self.conv1 = convolution(inputs, outputs, 3)
        self.time_emb_proj = None if time_channels is None else linear(time_channels, outputs)
        self.norm2 = group_norm(groups, outputs, epsilon)
        self.conv2 = convolution(outputs, outputs, 3)
        self.conv_shortcut = None if inputs == outputs else convolution(inputs, outputs, 1)
        self.scale = scale

    def __call__(self, x: Array, time: Array | None = None) -> Array:
        h = self.conv1(jax.nn.silu(self.norm1(x)))
        if self.time_emb_proj is not None:
            assert time is not None
            h = h + self.time_emb_proj(jax.nn.silu(time))[:, None, None]
        h = self.conv2(jax.nn.silu(self.norm2(h)))
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)
        return (x + h) / self.scale
