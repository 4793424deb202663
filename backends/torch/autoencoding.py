"""Between pixels and latents as a pipeline's denoiser sees them, by the pipeline's autoencoder."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F


def decoded(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Pixels from -1 to 1, ``(rows, 3, height, width)``, of clean latents ``(rows, channels, y,
    x)``, whose squares of 2 x 2 may be packed into channels."""
    latents = latents.to(vae.dtype)
    # Flux.2's pipelines give latents that are unpacked, and then as the autoencoder takes them.
    if getattr(vae, "bn", None) is not None and latents.shape[1] != vae.config.latent_channels:
        mean, deviation = _batch_norm(vae, latents)
        latents = latents * deviation + mean
    own = _unpacked(vae, latents)
    if getattr(vae, "bn", None) is None:
        mean, deviation = _moments(vae, own)
        own = own * deviation + mean
    if not has_frames(vae):
        pixels: torch.Tensor = vae.decode(own).sample
        return pixels
    frames: torch.Tensor = vae.decode(own.unsqueeze(2)).sample
    return frames[:, :, 0]


@torch.no_grad()
def encoded(vae: Any, pixels: torch.Tensor, *, packed: bool) -> torch.Tensor:
    """The other way round: clean latents of pixels from -1 to 1, in the pixels' precision."""
    given = pixels.to(vae.dtype)
    made = vae.encode(given.unsqueeze(2) if has_frames(vae) else given)
    own = made.latent_dist.mode() if hasattr(made, "latent_dist") else made.latent
    own = own[:, :, 0] if has_frames(vae) else own
    if getattr(vae, "bn", None) is not None:
        latents = F.pixel_unshuffle(own, 2)
        mean, deviation = _batch_norm(vae, latents)
        latents = (latents - mean) / deviation
    else:
        mean, deviation = _moments(vae, own)
        latents = (own - mean) / deviation
        latents = F.pixel_unshuffle(latents, 2) if packed else latents
    return latents.to(pixels.dtype)


def has_frames(vae: Any) -> bool:
    """True if it is an autoencoder of videos: ``(rows, channels, frames, height, width)``."""
    return any(isinstance(module, torch.nn.Conv3d) for module in vae.modules())


def _unpacked(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    config = vae.config
    channels = config.get("z_dim") or config.get("latent_channels")
    return latents if latents.shape[1] == channels else F.pixel_shuffle(latents, 2)


def _moments(vae: Any, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and deviation by which an autoencoder's latents are shifted and scaled."""
    config = vae.config
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        each = (config.latents_mean, config.latents_std)
        mean, deviation = (latents.new_tensor(part).view(1, -1, 1, 1) for part in each)
        return mean, deviation
    scale = config.get("scaling_factor") or 1.0
    return latents.new_tensor(config.get("shift_factor") or 0.0), latents.new_tensor(1 / scale)


def _batch_norm(vae: Any, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of packed latents, by the statistics that Flux.2's autoencoder keeps."""
    mean = vae.bn.running_mean.view(1, -1, 1, 1).to(latents)
    variance = vae.bn.running_var.view(1, -1, 1, 1).to(latents)
    return mean, (variance + vae.config.batch_norm_eps).sqrt()
