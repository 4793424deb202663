"""Draws images with a model in training, by the pipeline's own classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL

if TYPE_CHECKING:
    from wordlight.backends.training.denoisers import Denoiser

#: What the model card recommends.
STEPS = 20
GUIDANCE = 3.0


def draw(
    model: Denoiser,
    autoencoder: AutoencoderKL,
    prompts: list[str],
    seed: int,
    guidance: float = GUIDANCE,
    batch: int = 16,
) -> list[npt.NDArray[np.uint8]]:
    """One image a prompt, ``(64, 64, 3)`` uint8."""
    pipeline = model.pipeline(autoencoder)
    pipeline.set_progress_bar_config(disable=True)
    side = autoencoder.config.sample_size
    images: list[npt.NDArray[np.uint8]] = []
    for start in range(0, len(prompts), batch):
        chunk = prompts[start : start + batch]
        seeds = [seed + start + k for k in range(len(chunk))]
        output = pipeline(
            chunk,
            height=side,
            width=side,
            num_inference_steps=STEPS,
            guidance_scale=guidance,
            generator=[torch.Generator().manual_seed(s) for s in seeds],
            output_type="np",
        )
        images += [np.rint(image * 255).astype(np.uint8) for image in output.images]
    return images
