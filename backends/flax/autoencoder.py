"""Between pixels and latents (diffusers' ``AutoencoderKL``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from wordlight.backends.flax.config import check_blocks, per_level, read_config
from wordlight.backends.flax.layers import (
    Array,
    Convolution,
    NoParameters,
    convolution,
    double,
    group_norm,
    linear,
)
from wordlight.backends.flax.residual import ResidualBlock

#: Of every normalisation in the autoencoder.
_EPSILON = 1e-6
_DOWN, _UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
_ONLY: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "shift_factor": (None,),
    "latents_mean": (None,),
    "latents_std": (None,),
}
#: ``force_upcast`` is about half precision, which the autoencoder isn't run in.
_WITHOUT_EFFECT = ("force_upcast", "sample_size")


@dataclass(frozen=True)
class AutoencoderConfig:
    """The settings in an autoencoder's config.json; see ``AutoencoderKL`` in diffusers."""

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = (_DOWN,)
    up_block_types: tuple[str, ...] = (_UP,)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> AutoencoderConfig:
        """From a config.json; raises UnsupportedConfigError."""
        config = read_config(cls, given, only=_ONLY, without_effect=_WITHOUT_EFFECT)
        for key, known in (("down_block_types", _DOWN), ("up_block_types", _UP)):
            per_level(getattr(config, key), len(config.block_out_channels), key)
            check_blocks("Autoencoder", key, getattr(config, key), (known,))
        return config

    @property
    def factor(self) -> int:
        """The width of a latent in pixels."""
        return int(2 ** (len(self.block_out_channels) - 1))


def _residual(config: AutoencoderConfig, inputs: int, outputs: int) -> ResidualBlock:
    return ResidualBlock(
        inputs, outputs, time_channels=None, groups=config.norm_num_groups, epsilon=_EPSILON
    )


class PixelAttention(nnx.Module):
    """Attention of the feature map's places to each other, with one head."""

    def __init__(self, channels: int, groups: int) -> None:
        self.group_norm = group_norm(groups, channels, _EPSILON)
        self.to_q = linear(channels, channels)
        self.to_k = linear(channels, channels)
        self.to_v = linear(channels, channels)
        self.to_out = nnx.List([linear(channels, channels), NoParameters()])

    def __call__(self, x: Array) -> Array:
        h = self.group_norm(x).reshape(x.shape[0], -1, 1, x.shape[-1])
        attended = jax.nn.dot_product_attention(self.to_q(h), self.to_k(h), self.to_v(h))
        merged: Array = self.to_out[0](attended).reshape(x.shape)
        return x + merged


class MiddleBlock(nnx.Module):
    """Two residual blocks, with attention between them where the configuration wants it."""

    def __init__(self, config: AutoencoderConfig) -> None:
        channels = config.block_out_channels[-1]
        self.resnets = nnx.List([_residual(config, channels, channels) for _ in range(2)])
        self.attentions = (
            nnx.List([PixelAttention(channels, config.norm_num_groups)])
            if config.mid_block_add_attention
            else None
        )

    def __call__(self, x: Array) -> Array:
        x = self.resnets[0](x)
        if self.attentions is not None:
            x = self.attentions[0](x)
        deepened: Array = self.resnets[1](x)
        return deepened


class DownBlock(nnx.Module):
    """Residual blocks, then half the size."""

    def __init__(
        self, config: AutoencoderConfig, inputs: int, outputs: int, *, halve: bool
    ) -> None:
        self.resnets = nnx.List(
            [
                _residual(config, outputs if i else inputs, outputs)
                for i in range(config.layers_per_block)
            ]
        )
        self.downsamplers = (
            nnx.List([Convolution(outputs, outputs, 3, stride=2, padding=0)]) if halve else None
        )

    def __call__(self, x: Array) -> Array:
        for resnet in self.resnets:
            x = resnet(x)
        if self.downsamplers is not None:
            # Padded at the lower and right side alone.
            x = self.downsamplers[0](jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))))
        return x


class UpBlock(nnx.Module):
    """Residual blocks, then twice the size."""

    def __init__(
        self, config: AutoencoderConfig, inputs: int, outputs: int, *, enlarge: bool
    ) -> None:
        self.resnets = nnx.List(
            [
                _residual(config, outputs if i else inputs, outputs)
                for i in range(config.layers_per_block + 1)
            ]
        )
        self.upsamplers = nnx.List([Convolution(outputs, outputs, 3)]) if enlarge else None

    def __call__(self, x: Array) -> Array:
        for resnet in self.resnets:
            x = resnet(x)
        if self.upsamplers is not None:
            x = self.upsamplers[0](double(x))
        return x


class Encoder(nnx.Module):
    """Pixels to mean and log variance of the latents."""

    def __init__(self, config: AutoencoderConfig) -> None:
        channels = config.block_out_channels
        last = len(channels) - 1
        self.conv_in = convolution(config.in_channels, channels[0], 3)
        self.down_blocks = nnx.List(
            [
                DownBlock(config, channels[max(i - 1, 0)], channels[i], halve=i < last)
                for i in range(len(channels))
            ]
        )
        self.mid_block = MiddleBlock(config)
        self.conv_norm_out = group_norm(config.norm_num_groups, channels[-1], _EPSILON)
        self.conv_out = convolution(channels[-1], 2 * config.latent_channels, 3)

    def __call__(self, x: Array) -> Array:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        x = self.mid_block(x)
        encoded: Array = self.conv_out(jax.nn.silu(self.conv_norm_out(x)))
        return encoded


class Decoder(nnx.Module):
    """Latents to pixels."""

    def __init__(self, config: AutoencoderConfig) -> None:
        channels = config.block_out_channels[::-1]
        last = len(channels) - 1
        self.conv_in = convolution(config.latent_channels, channels[0], 3)
        self.mid_block = MiddleBlock(config)
        self.up_blocks = nnx.List(
            [
                UpBlock(config, channels[max(i - 1, 0)], channels[i], enlarge=i < last)
                for i in range(len(channels))
            ]
        )
        self.conv_norm_out = group_norm(config.norm_num_groups, channels[-1], _EPSILON)
        self.conv_out = convolution(channels[-1], config.out_channels, 3)

    def __call__(self, x: Array) -> Array:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        decoded: Array = self.conv_out(jax.nn.silu(self.conv_norm_out(x)))
        return decoded


class Autoencoder(nnx.Module):
    """Pixels from -1 to 1, ``(batch, height, width, 3)``, and latents as the denoiser takes them:
    ``(batch, height / factor, width / factor, channels)``, scaled."""

    def __init__(self, config: AutoencoderConfig) -> None:
        self.config = config
        latent = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = convolution(2 * latent, 2 * latent, 1) if config.use_quant_conv else None
        self.post_quant_conv = (
            convolution(latent, latent, 1) if config.use_post_quant_conv else None
        )

    def encode(self, pixels: Array) -> Array:
        """The latents' mean, scaled."""
        moments = self.encoder(pixels)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        return moments[..., : self.config.latent_channels] * self.config.scaling_factor

    def decode(self, latents: Array) -> Array:
        """Pixels, not clipped."""
        x = latents / self.config.scaling_factor
        if self.post_quant_conv is not None:
            x = self.post_quant_conv(x)
        decoded: Array = self.decoder(x)
        return decoded
