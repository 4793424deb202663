"""The transformer inside the UNet's blocks, where the image looks at the text."""

from __future__ import annotations

from flax import nnx

from wordlight.backends.flax.attention import Attention, AttentionHook
from wordlight.backends.flax.layers import (
    Array,
    NoParameters,
    convolution,
    gelu,
    group_norm,
    layer_norm,
    linear,
)

#: Of diffusers' Transformer2DModel, whatever the configuration says of the other norms.
_NORM_EPSILON = 1e-6


class GatedProjection(nnx.Module):
    """A projection of which one half gates the other (GEGLU)."""

    def __init__(self, channels: int, inner: int) -> None:
        self.proj = linear(channels, 2 * inner)

    def __call__(self, x: Array) -> Array:
        projected = self.proj(x)
        half = projected.shape[-1] // 2
        return projected[..., :half] * gelu(projected[..., half:])


class FeedForward(nnx.Module):
    """Gated projection to four times the channels, and back."""

    def __init__(self, channels: int) -> None:
        self.net = nnx.List(
            [
                GatedProjection(channels, 4 * channels),
                NoParameters(),
                linear(4 * channels, channels),
            ]
        )

    def __call__(self, x: Array) -> Array:
        projected: Array = self.net[2](self.net[0](x))
        return projected


class TransformerBlock(nnx.Module):
    """Self-attention, cross-attention and feed-forward, each with a way round it."""

    def __init__(self, name: str, channels: int, heads: int, text_channels: int) -> None:
        self.norm1 = layer_norm(channels)
        self.attn1 = Attention(f"{name}.attn1", channels, heads)
        self.norm2 = layer_norm(channels)
        self.attn2 = Attention(f"{name}.attn2", channels, heads, text_channels=text_channels)
        self.norm3 = layer_norm(channels)
        self.ff = FeedForward(channels)

    def __call__(
        self, x: Array, grid: tuple[int, int], text: Array, hook: AttentionHook | None
    ) -> Array:
        x = x + self.attn1(self.norm1(x), grid, hook=hook)
        x = x + self.attn2(self.norm2(x), grid, text, hook)
        return x + self.ff(self.norm3(x))


class Transformer(nnx.Module):
    """Transformer blocks over the pixels of a feature map (diffusers' ``Transformer2DModel``).

    Args:
        name: the module's in the UNet.
        channels: of the feature map.
        heads, layers: the number of heads a layer, and of layers.
        text_channels: of the text embeddings.
        groups: of the normalisation.
        linear_projection: whether projections are dense layers or 1x1 convolutions: the same but
            for the shape in which a checkpoint keeps them.
    """

    def __init__(
        self,
        name: str,
        channels: int,
        *,
        heads: int,
        layers: int,
        text_channels: int,
        groups: int,
        linear_projection: bool,
    ) -> None:
        inner = channels // heads * heads
        self.norm = group_norm(groups, channels, _NORM_EPSILON)
        self.proj_in = (
            linear(channels, inner) if linear_projection else convolution(channels, inner, 1)
        )
        self.transformer_blocks = nnx.List(
            [
                TransformerBlock(f"{name}.transformer_blocks.{i}", inner, heads, text_channels)
                for i in range(layers)
            ]
        )
        self.proj_out = (
            linear(inner, channels) if linear_projection else convolution(inner, channels, 1)
        )

    def __call__(self, x: Array, text: Array, hook: AttentionHook | None) -> Array:
        batch, height, width, _ = x.shape
        h = self.proj_in(self.norm(x)).reshape(batch, height * width, -1)
        for block in self.transformer_blocks:
            h = block(h, (height, width), text, hook)
        projected: Array = self.proj_out(h.reshape(batch, height, width, -1))
        return x + projected
