"""GLM-Image: a language model that draws coarse tokens, and a denoiser with joint attention to them
and to ByT5's tokens of quoted text."""

from __future__ import annotations

from typing import Any

from diffusers import GlmImagePipeline, GlmImageTransformer2DModel
from transformers import GlmImageConfig, GlmImageForConditionalGeneration, GlmImageProcessor
from transformers.models.glm_image.image_processing_pil_glm_image import GlmImageImageProcessorPil

from wordlight.backends.torch.tiny.parts import autoencoder, flow_scheduler, quiet, rescaled
from wordlight.backends.torch.tiny.text_encoders import WIDTH, t5_text_encoder
from wordlight.backends.torch.tiny.tokenizers import (
    GLM_IMAGE_TEMPLATE,
    byt5_tokenizer,
    glm_image_tokenizer,
)

#: Coarse tokens that there are.
_CODES = 64


def glm_image() -> GlmImagePipeline:
    """GLM-Image."""
    letters = byt5_tokenizer()
    processor = GlmImageProcessor(
        image_processor=GlmImageImageProcessorPil(),
        tokenizer=glm_image_tokenizer(),
        chat_template=GLM_IMAGE_TEMPLATE,
    )
    denoiser = GlmImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
        condition_dim=4,
        prior_vq_quantizer_codebook_size=_CODES,
    )
    return quiet(
        GlmImagePipeline(
            tokenizer=letters,
            processor=processor,
            text_encoder=t5_text_encoder(letters),
            vision_language_encoder=rescaled(_language_model(processor.tokenizer)),
            # A coarse token is 32 pixels a side.
            vae=autoencoder(4, n_halvings=3, latents_mean=[0.0] * 4, latents_std=[1.0] * 4),
            transformer=rescaled(denoiser),
            scheduler=flow_scheduler(base_shift=0.25, max_shift=0.75, use_dynamic_shifting=True),
        )
    )


def _language_model(tokenizer: Any) -> GlmImageForConditionalGeneration:
    """Writes coarse tokens; its eye has one layer, and no picture is ever shown to it."""
    config = GlmImageConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "vision_vocab_size": _CODES,
            "max_position_embeddings": 4096,
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "pad_token_id": tokenizer.pad_token_id,
            # No code: it writes as many as it is asked for.
            "eos_token_id": _CODES,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [1, 1, 2],
                "rope_theta": 1e4,
            },
        },
        vision_config={
            "depth": 1,
            "hidden_size": WIDTH,
            "intermediate_size": WIDTH,
            "num_heads": 2,
            "image_size": 64,
        },
        vq_config={"embed_dim": 8, "num_embeddings": _CODES, "latent_channels": WIDTH},
        image_token_id=tokenizer.convert_tokens_to_ids("<|image|>"),
        image_start_token_id=tokenizer.convert_tokens_to_ids("<|dit|>"),
        image_end_token_id=tokenizer.convert_tokens_to_ids("<|dit_end|>"),
    )
    return GlmImageForConditionalGeneration(config)
