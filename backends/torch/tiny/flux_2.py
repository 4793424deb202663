"""Flux.2: joint attention to a language model's tokens, of which three layers are stacked."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderKLFlux2,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
)

from wordlight.backends.torch.tiny.parts import flow_scheduler, quiet, rescaled
from wordlight.backends.torch.tiny.text_encoders import mistral3_text_encoder, qwen3_text_encoder
from wordlight.backends.torch.tiny.tokenizers import mistral_tokenizer, qwen_tokenizer

_TEMPLATE = (
    "<s>{% for message in messages %}{% set text = message.content[0].text %}"
    "{% if message.role == 'system' %}[SYSTEM_PROMPT]{{ text }}[/SYSTEM_PROMPT]"
    "{% else %}[INST]{{ text }}[/INST]{% endif %}{% endfor %}"
)


def flux_2_dev() -> Flux2Pipeline:
    """Flux.2 dev, with Mistral 3 under a system message."""
    tokenizer = mistral_tokenizer(padding_side="right")
    tokenizer.chat_template = _TEMPLATE
    return quiet(
        Flux2Pipeline(
            # The real one is a processor round this tokenizer, which needs torchvision.
            tokenizer=tokenizer,
            text_encoder=mistral3_text_encoder(tokenizer, n_layers=30),
            transformer=_denoiser(guidance_embeds=True),
            vae=_autoencoder(),
            scheduler=flow_scheduler(),
        )
    )


def flux_2_klein() -> Flux2KleinPipeline:
    """Flux.2 klein, with Qwen 3; guidance is two calls."""
    tokenizer = qwen_tokenizer()
    return quiet(
        Flux2KleinPipeline(
            tokenizer=tokenizer,
            text_encoder=qwen3_text_encoder(tokenizer, n_layers=27),
            transformer=_denoiser(guidance_embeds=False),
            vae=_autoencoder(),
            scheduler=flow_scheduler(),
        )
    )


def _denoiser(*, guidance_embeds: bool) -> Any:
    denoiser = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    )
    return rescaled(denoiser)


def _autoencoder() -> AutoencoderKLFlux2:
    return AutoencoderKLFlux2(
        sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
    )
