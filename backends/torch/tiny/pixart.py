"""PixArt: cross-attention to T5's tokens."""

from __future__ import annotations

from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

from wordlight.backends.torch.tiny.parts import autoencoder, quiet, rescaled
from wordlight.backends.torch.tiny.text_encoders import t5_text_encoder
from wordlight.backends.torch.tiny.tokenizers import t5_tokenizer


def pixart_sigma() -> PixArtSigmaPipeline:
    """PixArt-Σ."""
    tokenizer = t5_tokenizer()
    denoiser = PixArtTransformer2DModel(
        sample_size=16,
        num_layers=2,
        patch_size=2,
        attention_head_dim=16,
        num_attention_heads=2,
        caption_channels=16,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=32,
        use_additional_conditions=False,
    )
    return quiet(
        PixArtSigmaPipeline(
            tokenizer=tokenizer,
            text_encoder=t5_text_encoder(tokenizer),
            transformer=rescaled(denoiser),
            vae=autoencoder(4),
            scheduler=DPMSolverMultistepScheduler(),
        )
    )
