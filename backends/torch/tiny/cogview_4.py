"""CogView 4: joint attention to GLM's tokens, padded in front to a multiple of 16."""

from __future__ import annotations

from diffusers import CogView4Pipeline, CogView4Transformer2DModel

from wordlight.backends.torch.tiny.parts import autoencoder, flow_scheduler, quiet, rescaled
from wordlight.backends.torch.tiny.text_encoders import glm_text_encoder
from wordlight.backends.torch.tiny.tokenizers import glm_tokenizer


def cogview_4() -> CogView4Pipeline:
    """CogView 4."""
    tokenizer = glm_tokenizer()
    denoiser = CogView4Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        text_embed_dim=16,
        time_embed_dim=8,
        condition_dim=4,
        sample_size=16,
        rope_axes_dim=(16, 16),
    )
    return quiet(
        CogView4Pipeline(
            tokenizer=tokenizer,
            text_encoder=glm_text_encoder(tokenizer),
            transformer=rescaled(denoiser),
            vae=autoencoder(4),
            scheduler=flow_scheduler(base_shift=0.25, max_shift=0.75, use_dynamic_shifting=True),
        )
    )
