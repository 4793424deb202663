"""Kandinsky 5: cross-attention to Qwen 2.5 VL's tokens; CLIP's is pooled."""

from __future__ import annotations

from diffusers import Kandinsky5T2IPipeline, Kandinsky5Transformer3DModel

from wordlight.backends.torch.tiny.parts import autoencoder, flow_scheduler, quiet, rescaled
from wordlight.backends.torch.tiny.text_encoders import clip_text_encoder, qwen25_vl_text_encoder
from wordlight.backends.torch.tiny.tokenizers import clip_tokenizer, qwen_tokenizer


def kandinsky_5() -> Kandinsky5T2IPipeline:
    """Kandinsky 5 Image Lite."""
    first, second = qwen_tokenizer(), clip_tokenizer()
    denoiser = Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        out_visual_dim=4,
        in_text_dim=16,
        in_text_dim2=16,
        time_dim=8,
        model_dim=32,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=2,
        axes_dims=(4, 6, 6),
    )
    return quiet(
        Kandinsky5T2IPipeline(
            # The real one is a processor round this tokenizer, which needs torchvision.
            tokenizer=first,
            text_encoder=qwen25_vl_text_encoder(first),
            tokenizer_2=second,
            text_encoder_2=clip_text_encoder(second),
            transformer=rescaled(denoiser),
            # The pipeline takes its autoencoder to shrink by 8.
            vae=autoencoder(4, 3),
            scheduler=flow_scheduler(),
        )
    )
