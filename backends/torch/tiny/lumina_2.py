"""Lumina 2: joint attention to Gemma 2's tokens behind a system prompt."""

from __future__ import annotations

from diffusers import Lumina2Pipeline, Lumina2Transformer2DModel

from wordlight.backends.torch.tiny.parts import autoencoder, flow_scheduler, quiet, rescaled
from wordlight.backends.torch.tiny.text_encoders import gemma2_text_encoder
from wordlight.backends.torch.tiny.tokenizers import gemma_tokenizer


def lumina_2() -> Lumina2Pipeline:
    """Lumina Image 2."""
    tokenizer = gemma_tokenizer()
    denoiser = Lumina2Transformer2DModel(
        sample_size=16,
        in_channels=4,
        hidden_size=32,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(4, 6, 6),
        axes_lens=(300, 64, 64),
        cap_feat_dim=16,
    )
    # The pipeline takes its autoencoder to shrink by 8.
    vae = autoencoder(4, 3, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1)
    return quiet(
        Lumina2Pipeline(
            tokenizer=tokenizer,
            text_encoder=gemma2_text_encoder(tokenizer),
            transformer=rescaled(denoiser),
            vae=vae,
            scheduler=flow_scheduler(),
        )
    )
