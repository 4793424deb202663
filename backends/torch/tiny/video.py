"""Video: Wan and LTX, cross-attention from every frame's pixels to T5's tokens."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    WanPipeline,
    WanTransformer3DModel,
)

from wordlight.backends.torch.tiny.parts import flow_scheduler, quiet, rescaled
from wordlight.backends.torch.tiny.text_encoders import t5_text_encoder, umt5_text_encoder
from wordlight.backends.torch.tiny.tokenizers import t5_tokenizer


def wan(**options: Any) -> WanPipeline:
    """Wan 2.1."""
    tokenizer = t5_tokenizer()
    vae = AutoencoderKLWan(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    return quiet(
        WanPipeline(
            tokenizer=tokenizer,
            text_encoder=umt5_text_encoder(tokenizer),
            transformer=_wan_denoiser(),
            vae=vae,
            scheduler=flow_scheduler(shift=3.0),
            **options,
        )
    )


def wan_22() -> WanPipeline:
    """Wan 2.2 A14B: a denoiser for the steps of much noise and one for those of little."""
    return wan(transformer_2=_wan_denoiser(), boundary_ratio=0.875)


def wan_22_small() -> WanPipeline:
    """Wan 2.2 5B: one denoiser, which is told the timestep of each place."""
    return wan(expand_timesteps=True)


def _wan_denoiser() -> WanTransformer3DModel:
    denoiser = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    )
    return rescaled(denoiser)


def ltx() -> LTXPipeline:
    """LTX Video."""
    tokenizer = t5_tokenizer(128)
    denoiser = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        num_layers=2,
        caption_channels=16,
    )
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    return quiet(
        LTXPipeline(
            tokenizer=tokenizer,
            text_encoder=t5_text_encoder(tokenizer),
            transformer=rescaled(denoiser),
            vae=vae,
            scheduler=flow_scheduler(),
        )
    )
