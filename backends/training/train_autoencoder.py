"""First stage of the training: the autoencoder, on rendered images; then its decoder alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL

from wordlight.backends.training.blueprints import Blueprint
from wordlight.backends.training.graphed import is_gpu, on_device, replayed
from wordlight.backends.training.networks import build_autoencoder
from wordlight.backends.training.rendering import SHARD, RenderedShards, shards_of
from wordlight.backends.training.training import (
    MeanLosses,
    Recipe,
    Run,
    averaged_weights,
    batch_indices,
    step_generator,
)

#: With 1e-6, as Stable Diffusion has it, two of the four channels went unused here.
_KL_WEIGHT = 1e-7
#: Three latent channels are held to the mean colour of the pixels they stand for, so that all
#: channels are alive and of like size.
_ANCHOR_WEIGHT = 1.0
#: A denoiser's latents are a little off: up to this share of their spread, when the decoder learns.
_DECODER_NOISE = 0.15
_VALIDATION_IMAGES = 64

AUTOENCODER, DECODER = "autoencoder.safetensors", "decoder.safetensors"
#: The parts of an AutoencoderKL that make pixels of latents.
_DECODING = ("post_quant_conv", "decoder")


def pixels(blueprint: Blueprint, split: str, indices: list[int]) -> torch.Tensor:
    """Rendered images as ``(batch, 3, 64, 64)`` in -1..1."""
    return as_pixels(np.stack([blueprint.data.rendered(split, i).image for i in indices]))


def as_pixels(images: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Images ``(batch, 64, 64, 3)`` as ``(batch, 3, 64, 64)`` in -1..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def train_autoencoder(
    blueprint: Blueprint,
    folder: Path,
    recipe: Recipe,
    images: int,
    device: str,
    save_every: int,
    workers: int = 1,
    eager: bool = False,
) -> None:
    """Train, or go on training, until ``recipe.steps``; ``workers`` processes render images."""
    torch.manual_seed(recipe.seed)
    model = on_device(build_autoencoder(blueprint.sizes), device)
    run = Run(folder, "autoencoder", model, recipe, {"images": images, **blueprint.settings})

    def loss_of(truth: torch.Tensor, noise: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        posterior = model.encode(truth).latent_dist
        output = model.decode(posterior.mean + posterior.std * noise).sample
        side = truth.shape[-1] // posterior.mean.shape[-1]
        colours = torch.nn.functional.avg_pool2d(truth, side)
        anchor = (posterior.mean[:, :3] - colours).square().mean()
        loss = _error(output, truth) + _KL_WEIGHT * posterior.kl().mean() + _ANCHOR_WEIGHT * anchor
        assert isinstance(loss, torch.Tensor)
        return loss

    _train(blueprint, run, images, device, save_every, workers, eager, loss_of)


def train_decoder(
    blueprint: Blueprint,
    folder: Path,
    recipe: Recipe,
    images: int,
    device: str,
    save_every: int,
    workers: int = 1,
    eager: bool = False,
) -> None:
    """Train the decoder further, with the encoder as it is, so that latents stay what they are."""
    torch.manual_seed(recipe.seed)
    autoencoder = build_autoencoder(blueprint.sizes)
    autoencoder.load_state_dict(averaged_weights(folder / AUTOENCODER))
    autoencoder = on_device(autoencoder, device)
    model = torch.nn.ModuleDict({name: getattr(autoencoder, name) for name in _DECODING})
    run = Run(folder, "decoder", model, recipe, {"images": images, **blueprint.settings})

    def loss_of(truth: torch.Tensor, noise: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            latents = autoencoder.encode(truth).latent_dist.mean
        noisy = latents + latents.std() * _DECODER_NOISE * level * noise
        return _error(autoencoder.decode(noisy).sample, truth)

    _train(blueprint, run, images, device, save_every, workers, eager, loss_of)


def trained_autoencoder(blueprint: Blueprint, folder: Path) -> AutoencoderKL:
    """The autoencoder of a run, with its decoder as far as that was trained.

    Raises FileNotFoundError when there is none.
    """
    autoencoder = build_autoencoder(blueprint.sizes)
    weights = averaged_weights(folder / AUTOENCODER)
    if (folder / DECODER).exists():
        weights |= averaged_weights(folder / DECODER)
    autoencoder.load_state_dict(weights)
    return autoencoder


def _train(
    blueprint: Blueprint,
    run: Run,
    images: int,
    device: str,
    save_every: int,
    workers: int,
    eager: bool,
    loss_of: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    """Train on rendered images; ``loss_of`` gets them, normal noise and uniform levels of it."""
    recipe, sizes = run.recipe, blueprint.sizes
    drawn = _Images(blueprint, images, workers)
    check = pixels(blueprint, "validation", list(range(_VALIDATION_IMAGES))).to(device)
    side = 64 >> (len(sizes.autoencoder_widths) - 1)

    def update(
        images: torch.Tensor, noise: torch.Tensor, level: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        truth = images.float() / 127.5 - 1.0
        if not is_gpu(device):
            truth = truth.contiguous(memory_format=torch.channels_last)
        loss = loss_of(truth, noise, level)
        run.apply(loss)
        return {"loss": loss.detach()}

    step = replayed(update, device, eager)
    losses = MeanLosses()
    while run.step < recipe.steps:
        generator = step_generator(recipe.seed, run.step)
        shape = (recipe.batch, sizes.latent_channels, side, side)
        noise = torch.randn(shape, generator=generator)
        level = torch.rand(recipe.batch, 1, 1, 1, generator=generator)
        chosen = batch_indices(images, recipe.batch, recipe.seed, run.step)
        run.begin_step()
        losses.add(step(images=drawn.of(chosen), noise=noise, level=level))
        run.step += 1
        if run.step % 200 == 0:
            run.log(**losses.take(), rate=recipe.rate_at(run.step - 1))
        if run.step % save_every == 0 or run.step == recipe.steps:
            run.save()
            run.log(validation_error=_validate(blueprint, run.path.parent, check))


class _Images:
    """The training images, rendered when they are first asked for, or by processes at once."""

    def __init__(self, blueprint: Blueprint, images: int, workers: int) -> None:
        self._blueprint = blueprint
        self._pixels = torch.zeros(images, 3, 64, 64, dtype=torch.uint8)
        self._drawn = torch.full((images,), workers > 1)
        if workers > 1:
            shards = RenderedShards(blueprint, "train", images, workers, shards_of(images))
            for shard in shards_of(images):
                found = torch.from_numpy(shards.take(shard)["images"]).permute(0, 3, 1, 2)
                self._pixels[shard * SHARD : shard * SHARD + len(found)] = found

    def of(self, indices: torch.Tensor) -> torch.Tensor:
        """Return some images, ``(n, 3, 64, 64)`` uint8."""
        for index in indices[~self._drawn[indices]].tolist():
            image = torch.from_numpy(self._blueprint.data.rendered("train", index).image)
            self._pixels[index] = image.permute(2, 0, 1)
            self._drawn[index] = True
        return self._pixels[indices]


def _error(output: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    error = output - truth
    loss: torch.Tensor = error.abs().mean() + error.square().mean()
    return loss


def _validate(blueprint: Blueprint, folder: Path, check: torch.Tensor) -> float:
    """Mean absolute error, in grey levels of 255, of the averaged weights."""
    model = trained_autoencoder(blueprint, folder).to(check.device)
    with torch.no_grad():
        output = model(check).sample.clamp(-1, 1)
    return float((output - check).abs().mean() * 127.5)
