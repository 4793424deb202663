"""Z-Image: joint attention to Qwen 3's tokens, both padded with learned ones."""

from __future__ import annotations

from diffusers import ZImagePipeline, ZImageTransformer2DModel

from wordlight.backends.torch.tiny.parts import autoencoder, flow_scheduler, quiet, rescaled
from wordlight.backends.torch.tiny.text_encoders import qwen3_text_encoder
from wordlight.backends.torch.tiny.tokenizers import qwen_tokenizer


def z_image() -> ZImagePipeline:
    """Z-Image; its Turbo is the same without guidance."""
    tokenizer = qwen_tokenizer()
    denoiser = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[4, 6, 6],
        axes_lens=[1024, 64, 64],
    )
    vae = autoencoder(4, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1)
    return quiet(
        ZImagePipeline(
            tokenizer=tokenizer,
            text_encoder=qwen3_text_encoder(tokenizer).model,
            transformer=rescaled(denoiser),
            vae=vae,
            scheduler=flow_scheduler(shift=3.0),
        )
    )
