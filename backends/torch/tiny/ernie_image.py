"""ERNIE-Image: joint attention to Mistral 3's tokens."""

from __future__ import annotations

from diffusers import AutoencoderKLFlux2, ErnieImagePipeline, ErnieImageTransformer2DModel

from wordlight.backends.torch.tiny.parts import flow_scheduler, quiet, rescaled
from wordlight.backends.torch.tiny.text_encoders import mistral3_text_encoder
from wordlight.backends.torch.tiny.tokenizers import mistral_tokenizer


def ernie_image() -> ErnieImagePipeline:
    """ERNIE-Image, without the language model that rewrites prompts."""
    tokenizer = mistral_tokenizer()
    denoiser = ErnieImageTransformer2DModel(
        hidden_size=32,
        num_attention_heads=2,
        num_layers=2,
        ffn_hidden_size=32,
        in_channels=16,
        out_channels=16,
        text_in_dim=16,
        rope_axes_dim=(4, 6, 6),
    )
    vae = AutoencoderKLFlux2(
        sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
    )
    return quiet(
        ErnieImagePipeline(
            tokenizer=tokenizer,
            text_encoder=mistral3_text_encoder(tokenizer, n_layers=3).model,
            transformer=rescaled(denoiser),
            vae=vae,
            scheduler=flow_scheduler(),
        )
    )
