"""HiDream: joint attention to T5's tokens and to two copies of Llama's."""

from __future__ import annotations

from diffusers import HiDreamImagePipeline, HiDreamImageTransformer2DModel

from wordlight.backends.torch.tiny.parts import autoencoder, flow_scheduler, quiet, rescaled
from wordlight.backends.torch.tiny.text_encoders import (
    clip_text_encoder,
    llama_text_encoder,
    t5_text_encoder,
)
from wordlight.backends.torch.tiny.tokenizers import clip_tokenizer, llama3_tokenizer, t5_tokenizer


def hidream() -> HiDreamImagePipeline:
    """HiDream I1."""
    first, second = clip_tokenizer(length=248), clip_tokenizer(pad="!", length=248)
    third, fourth = t5_tokenizer(), llama3_tokenizer()
    denoiser = HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        caption_channels=[16, 16],
        text_emb_dim=32,
        num_routed_experts=2,
        num_activated_experts=1,
        axes_dims_rope=(4, 6, 6),
        max_resolution=(16, 32),
        llama_layers=[0, 1],
        force_inference_output=True,
    )
    return quiet(
        HiDreamImagePipeline(
            tokenizer=first,
            text_encoder=clip_text_encoder(first, projection=True),
            tokenizer_2=second,
            text_encoder_2=clip_text_encoder(second, projection=True),
            tokenizer_3=third,
            text_encoder_3=t5_text_encoder(third),
            tokenizer_4=fourth,
            text_encoder_4=llama_text_encoder(fourth),
            transformer=rescaled(denoiser),
            vae=autoencoder(4, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1),
            scheduler=flow_scheduler(),
        )
    )
