"""The denoiser of Stable Diffusion 1.x, 2.x and XL (diffusers' ``UNet2DConditionModel``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from wordlight.backends.flax.attention import Attention, AttentionHook
from wordlight.backends.flax.config import check_blocks, per_level, read_config
from wordlight.backends.flax.errors import UnsupportedConfigError
from wordlight.backends.flax.layers import Array, convolution, group_norm, linear
from wordlight.backends.flax.unet_blocks import (
    DownBlock,
    MiddleBlock,
    NormSettings,
    TransformerSettings,
    UpBlock,
)

_DOWN = ("CrossAttnDownBlock2D", "DownBlock2D")
_UP = ("CrossAttnUpBlock2D", "UpBlock2D")
_ONLY: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "addition_embed_type": (None, "text_time"),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "downsample_padding": (1,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "mid_block_only_cross_attention": (None, False),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "num_attention_heads": (None,),
    "num_class_embeds": (None,),
    "only_cross_attention": (False,),
    "resnet_out_scale_factor": (1.0,),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",),
    "time_cond_proj_dim": (None,),
    "time_embedding_act_fn": (None,),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
}
_WITHOUT_EFFECT = (
    "dropout",  # there is none when a network is only used
    "upcast_attention",  # scores are always float32
    "addition_embed_type_num_heads",  # of another kind of added embedding
)
#: Settings that are given once for all levels, or level by level.
_PER_LEVEL = (
    "attention_head_dim",
    "cross_attention_dim",
    "layers_per_block",
    "reverse_transformer_layers_per_block",
    "transformer_layers_per_block",
)


@dataclass(frozen=True)
class UNetConfig:
    """The settings in a UNet's config.json; see ``UNet2DConditionModel`` in diffusers."""

    sample_size: int | tuple[int, int] | None = None
    in_channels: int = 4
    out_channels: int = 4
    flip_sin_to_cos: bool = True
    freq_shift: float = 0
    down_block_types: tuple[str, ...] = (_DOWN[0],) * 3 + (_DOWN[1],)
    up_block_types: tuple[str, ...] = (_UP[1],) + (_UP[0],) * 3
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int | tuple[int, ...] = 2
    mid_block_scale_factor: float = 1.0
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    cross_attention_dim: int | tuple[int, ...] = 1280
    transformer_layers_per_block: int | tuple[int, ...] = 1
    reverse_transformer_layers_per_block: tuple[int, ...] | None = None
    #: In spite of its name the number of heads.
    attention_head_dim: int | tuple[int, ...] = 8
    use_linear_projection: bool = False
    addition_time_embed_dim: int | None = None
    projection_class_embeddings_input_dim: int | None = None

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> UNetConfig:
        """From a config.json; raises UnsupportedConfigError."""
        config = read_config(
            cls, given, only=_ONLY, without_effect=_WITHOUT_EFFECT, or_zero=("freq_shift",)
        )
        levels = len(config.block_out_channels)
        for key, known in (("down_block_types", _DOWN), ("up_block_types", _UP)):
            per_level(getattr(config, key), levels, key)
            check_blocks("UNet", key, getattr(config, key), known)
        for key in _PER_LEVEL:
            per_level(getattr(config, key), levels, key)
        if given.get("addition_embed_type") is None:
            sizes = (config.addition_time_embed_dim, config.projection_class_embeddings_input_dim)
            if sizes != (None, None):
                raise UnsupportedConfigError(
                    "UNet: addition_time_embed_dim and projection_class_embeddings_input_dim mean "
                    "nothing without addition_embed_type='text_time'"
                )
        elif None in (config.addition_time_embed_dim, config.projection_class_embeddings_input_dim):
            raise UnsupportedConfigError(
                "UNet: addition_embed_type='text_time' needs addition_time_embed_dim and "
                "projection_class_embeddings_input_dim"
            )
        return config


class TimestepEmbedding(nnx.Module):
    """Two dense layers on a sinusoidal embedding."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.linear_1 = linear(inputs, outputs)
        self.linear_2 = linear(outputs, outputs)

    def __call__(self, x: Array) -> Array:
        embedded: Array = self.linear_2(jax.nn.silu(self.linear_1(x)))
        return embedded


def sinusoids(values: Array, channels: int, *, flip_sin_to_cos: bool, shift: float) -> Array:
    """``(batch,)`` to ``(batch, channels)`` float32: sines and cosines of falling frequency."""
    half = channels // 2
    exponents = -math.log(10000) * jnp.arange(half, dtype=jnp.float32) / (half - shift)
    angles = values.astype(jnp.float32)[:, None] * jnp.exp(exponents)
    parts = [jnp.sin(angles), jnp.cos(angles)]
    return jnp.concatenate(parts[::-1] if flip_sin_to_cos else parts, axis=-1)


class UNet(nnx.Module):
    """Predicts the noise (or what the model was trained to predict) in latents."""

    def __init__(self, config: UNetConfig) -> None:
        self.config = config
        channels = config.block_out_channels
        levels = len(channels)
        time_channels = 4 * channels[0]
        common = NormSettings(time_channels, config.norm_num_groups, config.norm_eps)
        attending = _attending(config)
        depths = per_level(config.layers_per_block, levels, "layers_per_block")

        self.conv_in = convolution(config.in_channels, channels[0], 3)
        self.time_embedding = TimestepEmbedding(channels[0], time_channels)
        added = config.projection_class_embeddings_input_dim
        self.add_embedding = None if added is None else TimestepEmbedding(added, time_channels)
        self.down_blocks: nnx.List[DownBlock] = nnx.List([])
        kept = [channels[0]]
        for i, kind in enumerate(config.down_block_types):
            last = i == levels - 1
            self.down_blocks.append(
                DownBlock(
                    f"down_blocks.{i}",
                    channels[max(i - 1, 0)],
                    channels[i],
                    depths[i],
                    common,
                    attending[i] if kind == _DOWN[0] else None,
                    halve=not last,
                )
            )
            kept += [channels[i]] * (depths[i] + (not last))
        self.mid_block = MiddleBlock(
            channels[-1], common, attending[-1], config.mid_block_scale_factor
        )
        self.up_blocks: nnx.List[UpBlock] = nnx.List([])
        up_layers = config.reverse_transformer_layers_per_block
        for i, kind in enumerate(config.up_block_types):
            level = levels - 1 - i
            count = depths[level] + 1
            how = attending[level]
            if up_layers is not None:
                how = TransformerSettings(
                    how.heads, up_layers[i], how.text_channels, how.linear_projection
                )
            self.up_blocks.append(
                UpBlock(
                    f"up_blocks.{i}",
                    channels[min(level + 1, levels - 1)],
                    tuple(kept.pop() for _ in range(count)),
                    channels[level],
                    common,
                    how if kind == _UP[0] else None,
                    enlarge=level > 0,
                )
            )
        self.conv_norm_out = group_norm(config.norm_num_groups, channels[0], config.norm_eps)
        self.conv_out = convolution(channels[0], config.out_channels, 3)

    def __call__(
        self,
        latents: Array,
        timesteps: Array,
        text: Array,
        added: Mapping[str, Array] | None = None,
        hook: AttentionHook | None = None,
    ) -> Array:
        """The prediction.

        Args:
            latents: ``(batch, height, width, channels)``.
            timesteps: ``(batch,)``.
            text: embeddings, ``(batch, tokens, channels)``.
            added: of Stable Diffusion XL, ``text_embeds`` ``(batch, channels)`` and ``time_ids``
                ``(batch, 6)``.
            hook: looks at attention.
        """
        time = self._time(timesteps, added or {}, latents.dtype)
        x = self.conv_in(latents)
        kept = [x]
        for down in self.down_blocks:
            x, more = down(x, time, text, hook)
            kept += more
        x = self.mid_block(x, time, text, hook)
        for up in self.up_blocks:
            x = up(x, kept, time, text, hook)
        prediction: Array = self.conv_out(jax.nn.silu(self.conv_norm_out(x)))
        return prediction

    def attentions(self) -> list[Attention]:
        """All attention in the order in which it comes."""
        blocks: list[DownBlock | MiddleBlock | UpBlock] = [
            *self.down_blocks,
            self.mid_block,
            *self.up_blocks,
        ]
        return [
            attention
            for block in blocks
            for transformer in block.attentions or ()
            for layer in transformer.transformer_blocks
            for attention in (layer.attn1, layer.attn2)
        ]

    def _time(self, timesteps: Array, added: Mapping[str, Array], dtype: Any) -> Array:
        waves = self._sinusoids(timesteps, self.config.block_out_channels[0])
        time = self.time_embedding(waves.astype(dtype))
        if self.add_embedding is not None:
            assert self.config.addition_time_embed_dim is not None
            ids = added["time_ids"]
            sizes = self._sinusoids(ids.reshape(-1), self.config.addition_time_embed_dim)
            sizes = sizes.reshape(ids.shape[0], -1).astype(dtype)
            time = time + self.add_embedding(
                jnp.concatenate([added["text_embeds"].astype(dtype), sizes], axis=-1)
            )
        return time

    def _sinusoids(self, values: Array, channels: int) -> Array:
        config = self.config
        return sinusoids(
            values, channels, flip_sin_to_cos=config.flip_sin_to_cos, shift=config.freq_shift
        )


def _attending(config: UNetConfig) -> list[TransformerSettings]:
    """Return the settings of each level's transformers, from the finest on."""
    levels = len(config.block_out_channels)
    settings = zip(
        per_level(config.attention_head_dim, levels, "attention_head_dim"),
        per_level(config.transformer_layers_per_block, levels, "transformer_layers_per_block"),
        per_level(config.cross_attention_dim, levels, "cross_attention_dim"),
        strict=True,
    )
    return [TransformerSettings(*setting, config.use_linear_projection) for setting in settings]
