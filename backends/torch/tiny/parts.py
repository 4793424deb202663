"""Parts that several tiny pipelines share."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler

_QUERIES_AND_KEYS = ("to_q", "to_k", "add_q", "add_k", "qkv", "q_proj", "k_proj")


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


def rescaled(model: Any) -> Any:
    """The model with weights redrawn so that each layer's output is as large as its input.

    Weights that are zero before training would hide the text; larger queries and keys make
    attention uneven.
    """
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim < 2:
                continue
            weight.copy_(torch.randn_like(weight) * weight[0].numel() ** -0.5)
            if any(part in name for part in _QUERIES_AND_KEYS):
                weight *= 2
    return model.eval()


def quiet(pipe: Any) -> Any:
    """The pipeline without a progress bar."""
    pipe.set_progress_bar_config(disable=True)
    return pipe
