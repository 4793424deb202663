"""What benchmarks measure where no file of a model is at hand: pipelines of random weights.

``sd15`` has the sizes of Stable Diffusion 1.5; ``narrow`` its blocks and heads, a fifth as wide,
and an autoencoder of next to nothing. ``thin`` has all of its layers, each with next to no
arithmetic: at 64 pixels it waits for Python alone, as half precision on a large GPU does. Their
tokenizer is the embedded model's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from wordlight.backends import Backend, load
from wordlight.backends.scenes.tokenizer import BOS_ID, EOS_ID, build_tokenizer, vocabulary

CONTEXT = 77
_CROSS_ATTENTION = {
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
_AUTOENCODER = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
_TEXT = {
    "hidden_size": 768,
    "num_attention_heads": 12,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": BOS_ID,
    "eos_token_id": EOS_ID,
    "pad_token_id": EOS_ID,
}
#: The settings of each part, by the model's name.
CONFIGS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "narrow": {
        "unet": {"sample_size": 32, "block_out_channels": (64, 128, 256, 256)},
        "text": {
            "vocab_size": len(vocabulary()),
            "intermediate_size": 768,
            "num_hidden_layers": 2,
        },
        "vae": {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4},
        "scheduler": {},
    },
    "thin": {
        "unet": {
            "sample_size": 8,
            "block_out_channels": (32, 32, 32, 32),
            "cross_attention_dim": 48,
            "norm_num_groups": 8,
        },
        "text": {
            "vocab_size": len(vocabulary()),
            "hidden_size": 48,
            "intermediate_size": 48,
            "num_hidden_layers": 12,
        },
        "vae": {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 2, "norm_num_groups": 4},
        "scheduler": {},
    },
    "sd15": {
        "unet": {"sample_size": 64, "block_out_channels": (320, 640, 1280, 1280)},
        "text": {"vocab_size": 49408, "intermediate_size": 3072, "num_hidden_layers": 12},
        "vae": {
            "block_out_channels": (128, 256, 512, 512),
            "layers_per_block": 2,
            "sample_size": 512,
        },
        "scheduler": {
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
        },
    },
}


def build(name: str, device: str = "cpu", dtype: str = "float32") -> StableDiffusionPipeline:
    """Build a model of ``CONFIGS`` where it is to run: a full-size one takes a second on a GPU."""
    config = CONFIGS[name]
    torch.manual_seed(0)
    with torch.device(device):
        unet = UNet2DConditionModel(**{**_CROSS_ATTENTION, **config["unet"]})
        text = CLIPTextModel(CLIPTextConfig(**{**_TEXT, **config["text"]}))
        vae = AutoencoderKL(**_AUTOENCODER, **config["vae"])
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = CONTEXT
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(
            clip_sample=False, set_alpha_to_one=False, steps_offset=1, **config["scheduler"]
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device, getattr(torch, dtype))


def backend_of(
    model: str, *, device: str | None = None, dtype: str | None = None, **options: Any
) -> Backend:
    """Load a model of ``CONFIGS``, or any that ``load`` takes, with ``load``'s options."""
    if model not in CONFIGS:
        return load(model, device=device, dtype=dtype, **options)
    on_gpu = torch.cuda.is_available() and device in (None, "cuda")
    pipe = build(model, "cuda" if on_gpu else "cpu", dtype or "float32")
    if options.get("framework") != "flax":
        return load(pipe, **options)
    # Flax reads files alone.
    with tempfile.TemporaryDirectory() as folder:
        pipe.save_pretrained(folder)
        return load(Path(folder), device=device, dtype=dtype, **options)
