"""Text encoders of the real classes: a few layers, two heads, random weights."""

from __future__ import annotations

from typing import Any

from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    GlmConfig,
    GlmModel,
    LlamaConfig,
    LlamaForCausalLM,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
    T5GemmaConfig,
    UMT5Config,
    UMT5EncoderModel,
)
from transformers.models.t5gemma.modeling_t5gemma import T5GemmaEncoder

from wordlight.backends.torch.tiny.parts import rescaled

#: Channels of a text encoder's states.
WIDTH = 16


def clip_text_encoder(
    tokenizer: Any, width: int = WIDTH, *, projection: bool = False
) -> CLIPTextModel | CLIPTextModelWithProjection:
    """CLIP's, with a projection of the pooled state for Stable Diffusion XL and 3."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return rescaled((CLIPTextModelWithProjection if projection else CLIPTextModel)(config))


def t5_text_encoder(tokenizer: Any) -> T5EncoderModel:
    """T5's encoder; ByT5's too."""
    return rescaled(T5EncoderModel(T5Config(**_t5(tokenizer), feed_forward_proj="gated-gelu")))


def umt5_text_encoder(tokenizer: Any) -> UMT5EncoderModel:
    """UMT5's encoder, with relative positions in every layer."""
    return rescaled(UMT5EncoderModel(UMT5Config(**_t5(tokenizer))))


def gemma2_text_encoder(tokenizer: Any) -> Gemma2Model:
    """Gemma 2 without its head."""
    config = Gemma2Config(**_decoder(tokenizer), head_dim=WIDTH // 2, sliding_window=512)
    return rescaled(Gemma2Model(config))


def t5gemma_text_encoder(tokenizer: Any) -> T5GemmaEncoder:
    """T5Gemma's encoder."""
    sizes = {**_decoder(tokenizer), "head_dim": WIDTH // 2, "sliding_window": 512}
    config = T5GemmaConfig(encoder=sizes, decoder=sizes, vocab_size=len(tokenizer))
    return rescaled(T5GemmaEncoder(config.encoder))


def glm_text_encoder(tokenizer: Any) -> GlmModel:
    """GLM 4 without its head."""
    return rescaled(GlmModel(GlmConfig(**_decoder(tokenizer), head_dim=WIDTH // 2)))


def llama_text_encoder(tokenizer: Any) -> LlamaForCausalLM:
    """Llama 3."""
    return rescaled(LlamaForCausalLM(LlamaConfig(**_decoder(tokenizer, n_layers=2))))


def qwen3_text_encoder(tokenizer: Any, n_layers: int = 3) -> Qwen3ForCausalLM:
    """Qwen 3."""
    config = Qwen3Config(**_decoder(tokenizer, n_layers=n_layers), head_dim=WIDTH // 2)
    return rescaled(Qwen3ForCausalLM(config))


def qwen25_vl_text_encoder(tokenizer: Any) -> Qwen2_5_VLForConditionalGeneration:
    """Qwen 2.5 VL; its eye has one layer, and no picture is ever shown to it."""
    rotary = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6}
    config = Qwen2_5_VLConfig(
        text_config={**_decoder(tokenizer), "rope_parameters": rotary},
        vision_config={
            "depth": 1,
            "hidden_size": WIDTH,
            "intermediate_size": WIDTH,
            "num_heads": 2,
            "out_hidden_size": WIDTH,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    )
    return rescaled(Qwen2_5_VLForConditionalGeneration(config))


def qwen3_vl_text_encoder(tokenizer: Any, n_layers: int = 3) -> Qwen3VLForConditionalGeneration:
    """Qwen 3 VL; its eye has one layer, and no picture is ever shown to it."""
    rotary = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e6}
    config = Qwen3VLConfig(
        text_config={
            **_decoder(tokenizer, n_layers=n_layers),
            "head_dim": WIDTH // 2,
            "rope_parameters": rotary,
        },
        vision_config={
            "depth": 1,
            "hidden_size": WIDTH,
            "intermediate_size": WIDTH,
            "num_heads": 2,
            "out_hidden_size": WIDTH,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    )
    return rescaled(Qwen3VLForConditionalGeneration(config))


def mistral3_text_encoder(tokenizer: Any, n_layers: int) -> Mistral3ForConditionalGeneration:
    """Mistral 3; its eye has one layer, and no picture is ever shown to it."""
    config = Mistral3Config(
        text_config={
            **_decoder(tokenizer, n_layers=n_layers),
            "model_type": "mistral",
            "head_dim": WIDTH // 2,
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": WIDTH,
            "intermediate_size": WIDTH,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"),
    )
    return rescaled(Mistral3ForConditionalGeneration(config))


def _t5(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "d_model": WIDTH,
        "d_kv": WIDTH // 2,
        "d_ff": 2 * WIDTH,
        "num_layers": 2,
        "num_heads": 2,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _decoder(tokenizer: Any, n_layers: int = 3) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": n_layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
