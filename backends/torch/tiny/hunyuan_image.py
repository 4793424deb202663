"""HunyuanImage 2.1: joint attention to Qwen 2.5 VL's tokens, and to ByT5's of quoted text."""

from __future__ import annotations

from diffusers import (
    AutoencoderKLHunyuanImage,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
)
from diffusers.guiders import AdaptiveProjectedMixGuidance

from wordlight.backends.torch.tiny.parts import flow_scheduler, quiet, rescaled
from wordlight.backends.torch.tiny.text_encoders import qwen25_vl_text_encoder, t5_text_encoder
from wordlight.backends.torch.tiny.tokenizers import byt5_tokenizer, qwen_tokenizer


def hunyuan_image() -> HunyuanImagePipeline:
    """HunyuanImage 2.1."""
    first, second = qwen_tokenizer(), byt5_tokenizer()
    denoiser = HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=(1, 1),
        text_embed_dim=16,
        text_embed_2_dim=16,
        rope_axes_dim=(8, 8),
    )
    vae = AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 32),
        layers_per_block=1,
        spatial_compression_ratio=2,
        sample_size=32,
        scaling_factor=0.75,
    )
    return quiet(
        HunyuanImagePipeline(
            tokenizer=first,
            text_encoder=qwen25_vl_text_encoder(first),
            tokenizer_2=second,
            text_encoder_2=t5_text_encoder(second),
            transformer=rescaled(denoiser),
            vae=vae,
            scheduler=flow_scheduler(),
            guider=AdaptiveProjectedMixGuidance(),
            ocr_guider=AdaptiveProjectedMixGuidance(),
        )
    )
