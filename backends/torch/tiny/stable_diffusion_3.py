"""Stable Diffusion 3 and 3.5: joint attention to 77 tokens of CLIP and then those of T5."""

from __future__ import annotations

from typing import Any

from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

from wordlight.backends.torch.tiny.parts import autoencoder, flow_scheduler, quiet, rescaled
from wordlight.backends.torch.tiny.text_encoders import clip_text_encoder, t5_text_encoder
from wordlight.backends.torch.tiny.tokenizers import clip_tokenizer, t5_tokenizer


def stable_diffusion_3(**denoiser: Any) -> StableDiffusion3Pipeline:
    """Stable Diffusion 3."""
    first, second, third = clip_tokenizer(), clip_tokenizer(pad="!"), t5_tokenizer()
    options: dict[str, Any] = {
        "sample_size": 16,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "caption_projection_dim": 32,
        # The states of T5; those of the two CLIPs, joined along the channels, are made as wide.
        "joint_attention_dim": 16,
        "pooled_projection_dim": 16,
        "pos_embed_max_size": 32,
    }
    return quiet(
        StableDiffusion3Pipeline(
            tokenizer=first,
            text_encoder=clip_text_encoder(first, 8, projection=True),
            tokenizer_2=second,
            text_encoder_2=clip_text_encoder(second, 8, projection=True),
            tokenizer_3=third,
            text_encoder_3=t5_text_encoder(third),
            transformer=rescaled(SD3Transformer2DModel(**{**options, **denoiser})),
            vae=autoencoder(16, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06),
            scheduler=flow_scheduler(shift=3.0),
        )
    )


def stable_diffusion_35() -> StableDiffusion3Pipeline:
    """Stable Diffusion 3.5 medium: normalised queries and keys, and a layer of the image alone."""
    return stable_diffusion_3(qk_norm="rms_norm", dual_attention_layers=(0,))
