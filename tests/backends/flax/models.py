"""Tiny random PyTorch models, one a feature of the Flax networks: what these are measured by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from wordlight.backends.scenes.tokenizer import BOS_ID, CONTEXT, EOS_ID, build_tokenizer, vocabulary

TEXT_CHANNELS = 24
#: Stable Diffusion 1.x: projections as convolutions, one number of heads; three levels.
SD1 = {
    "sample_size": 16,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (16, 32, 32),
    "layers_per_block": 2,
    "cross_attention_dim": TEXT_CHANNELS,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
#: 2.x: dense projections, heads level by level; and what configurations seldom set.
SD2 = {
    "sample_size": 16,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "cross_attention_dim": TEXT_CHANNELS,
    "attention_head_dim": (2, 4),
    "norm_num_groups": 4,
    "use_linear_projection": True,
    "upcast_attention": True,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-4,
    "mid_block_scale_factor": 2.0,
}
#: XL: no attention at the finest level, deeper transformers further down, added conditioning.
SDXL = {
    "sample_size": 16,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (16, 32, 32),
    "layers_per_block": 1,
    "cross_attention_dim": TEXT_CHANNELS,
    "attention_head_dim": (2, 4, 8),
    "transformer_layers_per_block": (1, 2, 3),
    "norm_num_groups": 8,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 12 + 6 * 8,
}
#: What of a UNet can be set level by level, and otherwise on the way up than on the way down.
LEVEL_BY_LEVEL = {
    **SDXL,
    "layers_per_block": (1, 2, 1),
    "cross_attention_dim": (TEXT_CHANNELS,) * 3,
    "reverse_transformer_layers_per_block": (1, 3, 1),
}
VAE = {
    "sample_size": 32,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (8, 8, 16),
    "layers_per_block": 2,
    "norm_num_groups": 4,
}
TEXT = {
    "vocab_size": 99,
    "hidden_size": TEXT_CHANNELS,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 16,
    "bos_token_id": 97,
    "eos_token_id": 98,
    "pad_token_id": 98,
    "projection_dim": 12,
}


def perturbed(model: torch.nn.Module, seed: int = 0) -> Any:
    """The model with its norms, scales and biases made random: as initialised, all are alike, and
    swapping two of them would go unnoticed."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight += 0.2 * torch.randn(weight.shape, generator=draw)
    return model.eval()


def torch_unet(config: dict[str, Any]) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return perturbed(UNet2DConditionModel(**config))


def torch_autoencoder(**changes: Any) -> AutoencoderKL:
    torch.manual_seed(1)
    return perturbed(AutoencoderKL(**{**VAE, **changes}))


def torch_text_encoder(projects: bool = False, **changes: Any) -> CLIPTextModel:
    torch.manual_seed(2)
    kind = CLIPTextModelWithProjection if projects else CLIPTextModel
    return perturbed(kind(CLIPTextConfig(**{**TEXT, **changes})))


#: For the tokenizer of the embedded model.
_ITS_WORDS = {
    "vocab_size": len(vocabulary()),
    "max_position_embeddings": CONTEXT,
    "bos_token_id": BOS_ID,
    "eos_token_id": EOS_ID,
    "pad_token_id": EOS_ID,
    "num_hidden_layers": 2,
}
_SMALL_VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 8),
    "layers_per_block": 1,
}


#: The least that has a bottom and a way through it: what compiles soonest.
ONE_LEVEL = {
    **SD2,
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
    "block_out_channels": (16,),
    "attention_head_dim": 4,
}


def torch_pipeline(unet: dict[str, Any] | None = None) -> StableDiffusionPipeline:
    """All of a small model: of 2.x's kind, v-prediction included."""
    text = torch_text_encoder(**_ITS_WORDS)
    vae = torch_autoencoder(**_SMALL_VAE)
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=build_tokenizer(),
        unet=torch_unet(unet or SD2),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def torch_xl_pipeline() -> StableDiffusionXLPipeline:
    """All of a small Stable Diffusion XL: two text encoders of different widths, one with a gelu,
    tokenizers that pad differently, and its own scheduler."""
    padding_otherwise = build_tokenizer()
    padding_otherwise.pad_token = "red</w>"
    unet = {
        **SDXL,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (16, 32),
        "attention_head_dim": (2, 4),
        "transformer_layers_per_block": (1, 2),
    }
    return StableDiffusionXLPipeline(
        vae=torch_autoencoder(**_SMALL_VAE, scaling_factor=0.13025),
        text_encoder=torch_text_encoder(**_ITS_WORDS, hidden_size=8),
        text_encoder_2=torch_text_encoder(
            projects=True, **_ITS_WORDS, hidden_size=16, hidden_act="gelu"
        ),
        tokenizer=build_tokenizer(),
        tokenizer_2=padding_otherwise,
        unet=torch_unet(unet),
        scheduler=EulerDiscreteScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            steps_offset=1,
            timestep_spacing="leading",
        ),
        add_watermarker=False,
    )


def change(path: Path, **changes: Any) -> None:
    """Give a configuration on disk other values."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def saved(model: Any, folder: Path, **options: Any) -> Path:
    model.save_pretrained(folder, **options)
    return folder


class Captured:
    """An attention processor that remembers the probabilities: diffusers' own, in the open."""

    def __init__(self) -> None:
        #: With what they were computed from, for gradients.
        self.tensors: dict[str, torch.Tensor] = {}

    @property
    def probabilities(self) -> dict[str, np.ndarray]:
        return {name: tensor.detach().numpy() for name, tensor in self.tensors.items()}

    def on(self, unet: UNet2DConditionModel) -> Captured:
        unet.set_attn_processor(
            {key: self._processor(key.removesuffix(".processor")) for key in unet.attn_processors}
        )
        return self

    def _processor(self, name: str) -> Callable[..., torch.Tensor]:
        def process(
            attn: Any,
            hidden_states: torch.Tensor,
            encoder_hidden_states: torch.Tensor | None = None,
            **_: Any,
        ) -> torch.Tensor:
            seen = hidden_states if encoder_hidden_states is None else encoder_hidden_states
            query, key, value = (
                attn.head_to_batch_dim(part)
                for part in (attn.to_q(hidden_states), attn.to_k(seen), attn.to_v(seen))
            )
            found = attn.get_attention_scores(query, key)
            split = found.reshape(hidden_states.shape[0], attn.heads, *found.shape[1:])
            self.tensors[name] = split
            return attn.to_out[0](attn.batch_to_head_dim(found @ value))

        return process
