"""Ovis-Image: joint attention to Qwen 3's tokens behind an instruction."""

from __future__ import annotations

from diffusers import OvisImagePipeline, OvisImageTransformer2DModel

from wordlight.backends.torch.tiny.parts import autoencoder, flow_scheduler, quiet, rescaled
from wordlight.backends.torch.tiny.text_encoders import qwen3_text_encoder
from wordlight.backends.torch.tiny.tokenizers import qwen_tokenizer


def ovis_image() -> OvisImagePipeline:
    """Ovis-Image."""
    tokenizer = qwen_tokenizer()
    denoiser = OvisImageTransformer2DModel(
        in_channels=16,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 6, 6),
    )
    return quiet(
        OvisImagePipeline(
            tokenizer=tokenizer,
            text_encoder=qwen3_text_encoder(tokenizer).model,
            transformer=rescaled(denoiser),
            vae=autoencoder(4, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1),
            scheduler=flow_scheduler(),
        )
    )
