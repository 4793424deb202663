"""The denoiser's training data, encoded once, shard by shard, kept in a folder."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from wordlight.backends.training.blueprints import Blueprint
from wordlight.backends.training.places import place_targets
from wordlight.backends.training.train_autoencoder import pixels

SHARD = 5_000
_ENCODE_BATCH = 50
_SCALE_IMAGES = 500


def latent_scale(blueprint: Blueprint, autoencoder: AutoencoderKL, device: str) -> float:
    """The factor that gives the latents of the first training images unit variance."""
    latents = _encode(blueprint, autoencoder, "train", list(range(_SCALE_IMAGES)), device)
    return float(1.0 / latents.std())


def _encode(
    blueprint: Blueprint, autoencoder: AutoencoderKL, split: str, indices: list[int], device: str
) -> torch.Tensor:
    parts = []
    with torch.no_grad():
        for start in range(0, len(indices), _ENCODE_BATCH):
            batch = pixels(blueprint, split, indices[start : start + _ENCODE_BATCH]).to(device)
            parts.append(autoencoder.encode(batch).latent_dist.mean.float().cpu())
    return torch.cat(parts)


class LatentStore:
    """A split's images: ``latents`` ``(n, channels, 16, 16)`` float16, scaled, token ``ids``
    ``(n, context)``, and the places of ``place_targets``."""

    def __init__(
        self,
        blueprint: Blueprint,
        folder: Path,
        autoencoder: AutoencoderKL,
        split: str,
        images: int,
        device: str,
    ) -> None:
        if images % SHARD and images > SHARD:
            raise ValueError(f"the number of images must be a multiple of {SHARD}, not {images}")
        self.images = images
        self._blueprint = blueprint
        self._folder, self._split, self._device = folder, split, device
        self._autoencoder = autoencoder
        self._tokenizer = blueprint.tokens.build_tokenizer()
        self._shards: dict[int, dict[str, torch.Tensor]] = {}

    def batch(self, shard: int, chosen: torch.Tensor) -> dict[str, torch.Tensor]:
        """Some items of a shard, latents in float32."""
        if shard not in self._shards:
            self._shards[shard] = self._load(shard)
        data = {name: values[chosen] for name, values in self._shards[shard].items()}
        return {**data, "latents": data["latents"].float()}

    def _load(self, shard: int) -> dict[str, torch.Tensor]:
        path = self._folder / f"encoded-{self._split}-{shard:03d}.safetensors"
        if path.exists():
            return load_file(path)
        first = shard * SHARD
        indices = list(range(first, min(first + SHARD, self.images)))
        latents = _encode(self._blueprint, self._autoencoder, self._split, indices, self._device)
        latents = latents * self._autoencoder.config.scaling_factor
        scenes = [self._blueprint.data.rendered(self._split, i) for i in indices]
        data = {
            "latents": latents.half().contiguous(),
            "ids": token_ids(self._tokenizer, [s.scene.prompt for s in scenes]),
            **place_targets(self._blueprint, self._tokenizer, scenes),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file(data, partial)
        os.replace(partial, path)
        return data


def token_ids(tokenizer: object, prompts: list[str]) -> torch.Tensor:
    """Padded token ids, ``(batch, context)``."""
    assert callable(tokenizer)
    encoded = tokenizer(prompts, padding="max_length", return_tensors="pt")
    ids: torch.Tensor = encoded.input_ids
    return ids
