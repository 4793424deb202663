"""Qwen-Image: joint attention to Qwen 2.5 VL's tokens behind the template's."""

from __future__ import annotations

from diffusers import AutoencoderKLQwenImage, QwenImagePipeline, QwenImageTransformer2DModel

from wordlight.backends.torch.tiny.parts import flow_scheduler, quiet, rescaled
from wordlight.backends.torch.tiny.text_encoders import qwen25_vl_text_encoder
from wordlight.backends.torch.tiny.tokenizers import qwen_tokenizer


def qwen_image() -> QwenImagePipeline:
    """Qwen-Image."""
    tokenizer = qwen_tokenizer()
    denoiser = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 6, 6),
    )
    return quiet(
        QwenImagePipeline(
            tokenizer=tokenizer,
            text_encoder=qwen25_vl_text_encoder(tokenizer),
            transformer=rescaled(denoiser),
            vae=qwen_autoencoder(),
            scheduler=flow_scheduler(),
        )
    )


def qwen_autoencoder() -> AutoencoderKLQwenImage:
    """Qwen-Image's autoencoder, of four channels."""
    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
