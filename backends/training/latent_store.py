"""The denoiser's training data, encoded once, shard by shard, kept in a folder."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from wordlight.backends.training.blueprints import Blueprint
from wordlight.backends.training.rendering import RenderedShards, shards_of
from wordlight.backends.training.train_autoencoder import as_pixels, pixels
from wordlight.backends.training.training import Setup

_ENCODE_BATCH = 50
_SCALE_IMAGES = 500


def latent_scale(blueprint: Blueprint, autoencoder: AutoencoderKL, device: str) -> float:
    """The factor that gives the latents of the first training images unit variance."""
    images = pixels(blueprint, "train", list(range(_SCALE_IMAGES)))
    return float(1.0 / _encode(autoencoder, images, device).std())


def _encode(autoencoder: AutoencoderKL, images: torch.Tensor, device: str) -> torch.Tensor:
    """Return the latents of images, ``(n, 3, 64, 64)`` in -1 to 1."""
    with torch.no_grad():
        parts = [
            autoencoder.encode(batch.to(device)).latent_dist.mean.float().cpu()
            for batch in images.split(_ENCODE_BATCH)
        ]
    return torch.cat(parts)


class LatentStore:
    """A split's images: ``latents`` ``(n, channels, 16, 16)`` float16, scaled, token ``ids``
    ``(n, context)``, and the places of ``place_targets``."""

    def __init__(self, setup: Setup, autoencoder: AutoencoderKL, split: str, images: int) -> None:
        self.images = images
        self._folder, self._split, self._device = setup.folder, split, setup.device
        self._autoencoder = autoencoder
        self._shards: dict[int, dict[str, torch.Tensor]] = {}
        missing = [shard for shard in shards_of(images) if not self._path(shard).exists()]
        self._rendered = RenderedShards(setup.blueprint, split, images, setup.workers, missing)

    def batch(self, shard: int, chosen: torch.Tensor) -> dict[str, torch.Tensor]:
        """Some items of a shard, latents in float32."""
        if shard not in self._shards:
            self._shards[shard] = self._load(shard)
        data = {name: values[chosen] for name, values in self._shards[shard].items()}
        return {**data, "latents": data["latents"].float()}

    def _load(self, shard: int) -> dict[str, torch.Tensor]:
        path = self._path(shard)
        if path.exists():
            return load_file(path)
        rendered = self._rendered.take(shard)
        latents = _encode(self._autoencoder, as_pixels(rendered.pop("images")), self._device)
        latents = latents * self._autoencoder.config.scaling_factor
        data = {name: torch.from_numpy(values) for name, values in rendered.items()}
        data["latents"] = latents.half().contiguous()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file(data, partial)
        os.replace(partial, path)
        return data

    def _path(self, shard: int) -> Path:
        return self._folder / f"encoded-{self._split}-{shard:03d}.safetensors"
