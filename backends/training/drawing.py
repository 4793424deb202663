"""Draws images with a model in training, by the pipeline's own classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from wordlight.backends.scenes.tokenizer import build_tokenizer
from wordlight.backends.training.networks import build_scheduler

if TYPE_CHECKING:
    from wordlight.backends.training.train_denoiser import Denoiser

#: What the model card recommends.
STEPS = 20
GUIDANCE = 3.0


def build_pipeline(model: Denoiser, autoencoder: AutoencoderKL) -> StableDiffusionPipeline:
    """A plain Stable Diffusion pipeline of the networks."""
    pipeline = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=model.text_encoder,
        tokenizer=build_tokenizer(),
        unet=model.unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(
    model: Denoiser,
    autoencoder: AutoencoderKL,
    prompts: list[str],
    seed: int,
    guidance: float = GUIDANCE,
    batch: int = 16,
) -> list[npt.NDArray[np.uint8]]:
    """One image a prompt, ``(64, 64, 3)`` uint8."""
    pipeline = build_pipeline(model, autoencoder)
    images: list[npt.NDArray[np.uint8]] = []
    for start in range(0, len(prompts), batch):
        chunk = prompts[start : start + batch]
        seeds = [seed + start + k for k in range(len(chunk))]
        output = pipeline(
            chunk,
            num_inference_steps=STEPS,
            guidance_scale=guidance,
            generator=[torch.Generator().manual_seed(s) for s in seeds],
            output_type="np",
        )
        images += [np.rint(image * 255).astype(np.uint8) for image in output.images]
    return images
