"""NucleusMoE-Image: the picture attends to itself and to Qwen 3 VL's tokens."""

from __future__ import annotations

from diffusers import NucleusMoEImagePipeline, NucleusMoEImageTransformer2DModel

from wordlight.backends.torch.tiny.parts import flow_scheduler, quiet, rescaled
from wordlight.backends.torch.tiny.qwen_image import qwen_autoencoder
from wordlight.backends.torch.tiny.text_encoders import qwen3_vl_text_encoder
from wordlight.backends.torch.tiny.tokenizers import QWEN_PARTS_TEMPLATE, qwen_tokenizer


def nucleus_image() -> NucleusMoEImagePipeline:
    """NucleusMoE-Image; its second layer is a mixture of experts."""
    tokenizer = qwen_tokenizer()
    tokenizer.chat_template = QWEN_PARTS_TEMPLATE
    denoiser = NucleusMoEImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        joint_attention_dim=16,
        axes_dims_rope=(4, 6, 6),
        # Rounded down to multiples of 128 channels.
        mlp_ratio=8.0,
        dense_moe_strategy="leave_first_block_dense",
        num_experts=2,
        moe_intermediate_dim=16,
        capacity_factors=1.0,
    )
    pipe = NucleusMoEImagePipeline(
        # The real one is a processor round this tokenizer, which needs torchvision.
        processor=tokenizer,
        text_encoder=qwen3_vl_text_encoder(tokenizer, n_layers=8),
        transformer=rescaled(denoiser),
        vae=qwen_autoencoder(),
        scheduler=flow_scheduler(),
    )
    return quiet(pipe)
