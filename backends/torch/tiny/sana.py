"""Sana: linear attention among the pixels, cross-attention to Gemma 2's tokens."""

from __future__ import annotations

from diffusers import (
    AutoencoderDC,
    DPMSolverMultistepScheduler,
    SanaPipeline,
    SanaTransformer2DModel,
)

from wordlight.backends.torch.tiny.parts import quiet, rescaled
from wordlight.backends.torch.tiny.text_encoders import gemma2_text_encoder
from wordlight.backends.torch.tiny.tokenizers import gemma_tokenizer


def sana() -> SanaPipeline:
    """Sana."""
    tokenizer = gemma_tokenizer()
    denoiser = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
        sample_size=16,
    )
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "ResBlock"),
        decoder_block_types=("ResBlock", "ResBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        scaling_factor=0.41407,
    )
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return quiet(
        SanaPipeline(
            tokenizer=tokenizer,
            text_encoder=gemma2_text_encoder(tokenizer),
            transformer=rescaled(denoiser),
            vae=vae,
            scheduler=scheduler,
        )
    )
