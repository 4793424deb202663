"""Krea 2: joint attention to Qwen 3 VL's tokens, of which several layers are joined."""

from __future__ import annotations

from diffusers import Krea2Pipeline, Krea2Transformer2DModel

from wordlight.backends.torch.tiny.parts import flow_scheduler, quiet, rescaled
from wordlight.backends.torch.tiny.qwen_image import qwen_autoencoder
from wordlight.backends.torch.tiny.text_encoders import qwen3_vl_text_encoder
from wordlight.backends.torch.tiny.tokenizers import qwen_tokenizer


def krea_2() -> Krea2Pipeline:
    """Krea 2."""
    tokenizer = qwen_tokenizer()
    denoiser = Krea2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        timestep_embed_dim=16,
        text_hidden_dim=16,
        num_text_layers=2,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=32,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 6, 6),
    )
    return quiet(
        Krea2Pipeline(
            tokenizer=tokenizer,
            text_encoder=qwen3_vl_text_encoder(tokenizer).model,
            transformer=rescaled(denoiser),
            vae=qwen_autoencoder(),
            scheduler=flow_scheduler(),
            text_encoder_select_layers=(1, 2),
        )
    )
