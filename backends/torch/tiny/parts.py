"""Parts that several tiny pipelines share."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler


def autoencoder(n_channels: int, n_halvings: int = 1, **options: Any) -> AutoencoderKL:
    """An autoencoder that halves an image's sides ``n_halvings`` times."""
    n_levels = n_halvings + 1
    return AutoencoderKL(
        sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * n_levels,
        up_block_types=("UpDecoderBlock2D",) * n_levels,
        block_out_channels=(8,) * n_levels,
        norm_num_groups=4,
        latent_channels=n_channels,
        **options,
    )


def flow_scheduler(**options: Any) -> FlowMatchEulerDiscreteScheduler:
    """Flow matching's, as most transformers are trained with."""
    return FlowMatchEulerDiscreteScheduler(**options)


def lively(denoiser: Any) -> Any:
    """The denoiser with weights that are zero before training redrawn, which would hide the text,
    and larger queries and keys, so that its attention isn't even."""
    with torch.no_grad():
        for name, weight in denoiser.named_parameters():
            if weight.ndim < 2:
                continue
            if not weight.any():
                weight.copy_(torch.randn_like(weight) * weight[0].numel() ** -0.5)
            if any(part in name for part in ("to_q", "to_k", "add_q", "add_k", "qkv", "q_proj")):
                weight *= 3
    return denoiser.eval()


def quiet(pipe: Any) -> Any:
    """The pipeline without a progress bar."""
    pipe.set_progress_bar_config(disable=True)
    return pipe
