"""LongCat-Image: joint attention to Qwen 2.5 VL's tokens, those of quoted text letter by letter."""

from __future__ import annotations

from diffusers import LongCatImagePipeline, LongCatImageTransformer2DModel

from wordlight.backends.torch.tiny.parts import autoencoder, flow_scheduler, quiet, rescaled
from wordlight.backends.torch.tiny.text_encoders import qwen25_vl_text_encoder
from wordlight.backends.torch.tiny.tokenizers import qwen_tokenizer


def longcat_image() -> LongCatImagePipeline:
    """LongCat-Image."""
    tokenizer = qwen_tokenizer()
    denoiser = LongCatImageTransformer2DModel(
        # The pipeline's latents have 16 channels, whatever the model says.
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=[4, 6, 6],
    )
    return quiet(
        LongCatImagePipeline(
            tokenizer=tokenizer,
            # The real one is a processor round this tokenizer, which needs torchvision.
            text_processor=tokenizer,
            text_encoder=qwen25_vl_text_encoder(tokenizer),
            transformer=rescaled(denoiser),
            vae=autoencoder(16, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1),
            scheduler=flow_scheduler(),
        )
    )
