"""The families of denoisers that are known, and how each differs from the others."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from wordlight.backends.backend import Conditioning
from wordlight.backends.torch.attention_layers import attention_layers
from wordlight.backends.torch.denoisers import Denoiser, Layout
from wordlight.backends.torch.told import Told


def _as_it_is(family: Denoiser, told: Told) -> torch.Tensor:
    latents: torch.Tensor = told[family.latents]
    return latents


def _whole(_family: Denoiser, latents: torch.Tensor, _told: Told) -> torch.Tensor:
    return latents


def _output(_family: Denoiser, output: Any, _told: Told) -> torch.Tensor:
    prediction: torch.Tensor = output
    return prediction


def _number(timestep: float, _latents: torch.Tensor) -> float:
    return timestep


def _cross_attention(family: Denoiser, told: Told) -> Layout:
    """All keys of a text's attention are the text's."""
    height, width = told[family.latents].shape[2:]
    length = int(told[family.text].shape[1])
    return Layout((int(height), int(width)), slice(0, length), slice(None), length)


@torch.no_grad()
def _encode_unet(pipe: Any, prompts: Sequence[str], options: Mapping[str, Any]) -> Conditioning:
    """By the pipeline's own ``encode_prompt``; Stable Diffusion XL's has pooled embeddings, too."""
    made = pipe.encode_prompt(
        prompt=list(prompts),
        device=pipe._execution_device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
        **options,
    )
    added = {}
    if pipe.unet.config.addition_embed_type == "text_time":
        pooled = made[2]
        added = {"text_embeds": pooled, "time_ids": _own_size(pipe, pooled)}
    return Conditioning(made[0], added)


def _own_size(pipe: Any, pooled: torch.Tensor) -> torch.Tensor:
    """Time ids of an uncropped image of the model's own size, one row a pooled embedding."""
    sample = pipe.unet.config.sample_size
    sides = sample if isinstance(sample, (tuple, list)) else (sample, sample)
    size = tuple(int(side) * int(pipe.vae_scale_factor) for side in sides)
    told = {
        "original_size": size,
        "crops_coords_top_left": (0, 0),
        "target_size": size,
        "aesthetic_score": 6.0,
        "negative_aesthetic_score": 2.5,
        "negative_original_size": size,
        "negative_crops_coords_top_left": (0, 0),
        "negative_target_size": size,
        "dtype": pooled.dtype,
        "text_encoder_projection_dim": int(pooled.shape[-1]),
    }
    takes = inspect.signature(pipe._get_add_time_ids).parameters
    ids = pipe._get_add_time_ids(**{name: told[name] for name in takes if name in told})
    # Pipelines that start from an image make those of the negative prompt, too.
    own = ids[0] if isinstance(ids, tuple) else ids
    rows: torch.Tensor = own.to(pooled.device).expand(len(pooled), -1)
    return rows


def _added_to_unet(pipe: Any) -> frozenset[str]:
    pooled = pipe.unet.config.addition_embed_type == "text_time"
    return frozenset(("text_embeds", "time_ids") if pooled else ())


def _pushes_from_empty(pipe: Any) -> bool:
    # Stable Diffusion XL may push away from zeros.
    return not _added_to_unet(pipe)


#: Every family, the more particular first. To add one see docs/architecture.md.
FAMILIES: tuple[Denoiser, ...] = (
    Denoiser(
        name="Stable Diffusion 1, 2 and XL",
        classes=("UNet2DConditionModel",),
        parts=("unet",),
        attention="cross",
        latents="sample",
        layout=_cross_attention,
        unpack=_as_it_is,
        pack=_whole,
        read=_output,
        told_time=_number,
        layers=attention_layers,
        feature_maps=True,
        conditional_first=frozenset(
            ("StableDiffusionInstructPix2PixPipeline", "StableDiffusionXLInstructPix2PixPipeline")
        ),
        encode=_encode_unet,
        added_names=_added_to_unet,
        empty_is_negative=_pushes_from_empty,
    ),
)
