"""Flux.1 and Chroma: joint attention to T5's tokens, padding and all."""

from __future__ import annotations

from typing import Any

from diffusers import (
    ChromaPipeline,
    ChromaTransformer2DModel,
    FluxKontextPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
)

from wordlight.backends.torch.tiny.parts import autoencoder, flow_scheduler, quiet, rescaled
from wordlight.backends.torch.tiny.text_encoders import clip_text_encoder, t5_text_encoder
from wordlight.backends.torch.tiny.tokenizers import clip_tokenizer, t5_tokenizer

_SIZES: dict[str, Any] = {
    "in_channels": 16,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 16,
    "axes_dims_rope": (4, 6, 6),
}


def flux_dev() -> FluxPipeline:
    """Flux.1 dev: the strength of guidance is an input of the denoiser."""
    return quiet(FluxPipeline(**_parts(guidance_embeds=True)))


def flux_schnell() -> FluxPipeline:
    """Flux.1 schnell: no guidance."""
    return quiet(FluxPipeline(**_parts(guidance_embeds=False)))


def flux_kontext() -> FluxKontextPipeline:
    """Flux.1 Kontext: the tokens of a picture to be edited follow those of the image."""
    return quiet(FluxKontextPipeline(**_parts(guidance_embeds=True)))


def chroma() -> ChromaPipeline:
    """Chroma: Flux.1 without CLIP, all padding but the first token masked."""
    tokenizer = t5_tokenizer()
    denoiser = ChromaTransformer2DModel(
        **_SIZES, approximator_num_channels=8, approximator_hidden_dim=16, approximator_layers=1
    )
    return quiet(
        ChromaPipeline(
            tokenizer=tokenizer,
            text_encoder=t5_text_encoder(tokenizer),
            transformer=rescaled(denoiser),
            vae=_autoencoder(),
            scheduler=flow_scheduler(),
        )
    )


def _parts(*, guidance_embeds: bool) -> dict[str, Any]:
    first, second = clip_tokenizer(), t5_tokenizer()
    denoiser = FluxTransformer2DModel(
        **_SIZES, pooled_projection_dim=16, guidance_embeds=guidance_embeds
    )
    return {
        "tokenizer": first,
        "text_encoder": clip_text_encoder(first),
        "tokenizer_2": second,
        "text_encoder_2": t5_text_encoder(second),
        "transformer": rescaled(denoiser),
        "vae": _autoencoder(),
        "scheduler": flow_scheduler(),
    }


def _autoencoder() -> Any:
    return autoencoder(4, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1)
