"""Prints the memory tables of docs/flax.md: ``python docs/flax_memory.py``.

Nothing is downloaded or computed: networks are made of shapes, and one pass of each is traced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from wordlight.backends.flax.autoencoder import Autoencoder, AutoencoderConfig
from wordlight.backends.flax.checkpoint import abstract
from wordlight.backends.flax.clip_text import TextEncoder, TextEncoderConfig
from wordlight.backends.flax.unet import UNet, UNetConfig

GIB, MIB = 2**30, 2**20
TOKENS = 77
_LEVELS = 4


@dataclass(frozen=True)
class Model:
    """A published model's configurations, and the side of its images in pixels."""

    name: str
    side: int
    unet: UNetConfig
    text_encoders: tuple[TextEncoderConfig, ...]
    autoencoder: AutoencoderConfig


_CLIP_L = TextEncoderConfig(
    hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
)
_AUTOENCODER = AutoencoderConfig(
    block_out_channels=(128, 256, 512, 512),
    down_block_types=("DownEncoderBlock2D",) * _LEVELS,
    up_block_types=("UpDecoderBlock2D",) * _LEVELS,
    layers_per_block=2,
    norm_num_groups=32,
)
_ATTENDING = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
MODELS = (
    Model(
        "Stable Diffusion 1.5", 512, UNetConfig(cross_attention_dim=768), (_CLIP_L,), _AUTOENCODER
    ),
    Model(
        "Stable Diffusion 2.1",
        768,
        UNetConfig(
            cross_attention_dim=1024,
            attention_head_dim=(5, 10, 20, 20),
            use_linear_projection=True,
        ),
        (
            TextEncoderConfig(
                hidden_size=1024,
                intermediate_size=4096,
                num_hidden_layers=23,
                num_attention_heads=16,
                hidden_act="gelu",
            ),
        ),
        _AUTOENCODER,
    ),
    Model(
        "Stable Diffusion XL",
        1024,
        UNetConfig(
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", _ATTENDING[0], _ATTENDING[0]),
            up_block_types=(_ATTENDING[1], _ATTENDING[1], "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        ),
        (
            _CLIP_L,
            TextEncoderConfig(
                hidden_size=1280,
                intermediate_size=5120,
                num_hidden_layers=32,
                num_attention_heads=20,
                hidden_act="gelu",
                projection_dim=1280,
                projects=True,
            ),
        ),
        _AUTOENCODER,
    ),
)


def parameters(network: nnx.Module) -> int:
    """How many numbers a network of shapes has."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))


def weights(model: Model) -> tuple[int, int, int]:
    """The parameters of UNet, text encoders and autoencoder."""
    text = [parameters(abstract(lambda c=c: TextEncoder(c))) for c in model.text_encoders]
    return (
        parameters(abstract(lambda: UNet(model.unet))),
        sum(text),
        parameters(abstract(lambda: Autoencoder(model.autoencoder))),
    )


def largest(function: Callable[..., Any], *given: Any) -> int:
    """The bytes of the largest array that a function makes on its way."""
    return max(_sizes(jax.make_jaxpr(function)(*given).jaxpr))


def _sizes(jaxpr: Any) -> Iterable[int]:
    for equation in jaxpr.eqns:
        for made in equation.outvars:
            yield math.prod(made.aval.shape) * made.aval.dtype.itemsize
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(inner, "jaxpr"):
                    yield from _sizes(inner.jaxpr)
                elif hasattr(inner, "eqns"):
                    yield from _sizes(inner)


def of_denoiser(model: Model, dtype: Any) -> int:
    """The largest array of one guided step: two rows."""
    graph, state = nnx.split(abstract(lambda: UNet(model.unet)))
    config, side = model.unet, model.side // 8
    added = {}
    if config.addition_time_embed_dim is not None:
        pooled = model.text_encoders[-1].projection_dim
        added = {"text_embeds": _shape((2, pooled), dtype), "time_ids": _shape((2, 6), dtype)}
    return largest(
        lambda state, *given: nnx.merge(graph, state)(*given),
        jax.tree.map(lambda leaf: _shape(leaf.shape, dtype), state),
        _shape((2, side, side, 4), dtype),
        _shape((2,), jnp.float32),
        _shape((2, TOKENS, config.cross_attention_dim), dtype),
        added,
    )


def of_decoder(model: Model) -> int:
    """The largest array of decoding one image; always float32."""
    graph, state = nnx.split(abstract(lambda: Autoencoder(model.autoencoder)))
    side = model.side // 8
    return largest(
        lambda state, latents: nnx.merge(graph, state).decode(latents),
        state,
        _shape((1, side, side, 4), jnp.float32),
    )


def _shape(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def weight_rows(models: Iterable[Model] = MODELS) -> list[str]:
    """What is there all the time."""
    rows = [
        "| model | UNet | text | autoencoder | weights, float32 | weights, bfloat16 |",
        "|---|---|---|---|---|---|",
    ]
    for model in models:
        unet, text, autoencoder = weights(model)
        whole = 4 * (unet + text + autoencoder) / GIB
        # The autoencoder stays in float32.
        half = (2 * (unet + text) + 4 * autoencoder) / GIB
        counts = " | ".join(f"{count / 1e6:.1f} M" for count in (unet, text, autoencoder))
        rows.append(f"| {model.name} | {counts} | {whole:.2f} GiB | {half:.2f} GiB |")
    return rows


def image_rows(models: Iterable[Model] = MODELS) -> list[str]:
    """What an image needs beside the weights."""
    rows = [
        "| model | image | latents of 50 steps | denoiser, float32 | denoiser, bfloat16 "
        "| decoder |",
        "|---|---|---|---|---|---|",
    ]
    for model in models:
        latents = 50 * 4 * (model.side // 8) ** 2 * 4 / MIB
        arrays = (
            of_denoiser(model, jnp.float32),
            of_denoiser(model, jnp.bfloat16),
            of_decoder(model),
        )
        cells = " | ".join(f"{array / MIB:,.0f} MiB" for array in arrays)
        rows.append(f"| {model.name} | {model.side} x {model.side} | {latents:.1f} MiB | {cells} |")
    return rows


if __name__ == "__main__":
    print("\n".join([*weight_rows(), "", *image_rows()]))
