"""First stage of the training: the autoencoder, on rendered images; then its decoder alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from wordlight.backends.training.blueprints import Blueprint
from wordlight.backends.training.networks import build_autoencoder
from wordlight.backends.training.training import (
    Recipe,
    Run,
    averaged_weights,
    batch_indices,
    mean,
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
    images = np.stack([blueprint.data.rendered(split, index).image for index in indices])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def train_autoencoder(
    blueprint: Blueprint, folder: Path, recipe: Recipe, images: int, device: str, save_every: int
) -> None:
    """Train, or go on training, until ``recipe.steps``."""
    torch.manual_seed(recipe.seed)
    model = build_autoencoder(blueprint.sizes).to(device, memory_format=torch.channels_last)
    run = Run(folder, "autoencoder", model, recipe, {"images": images, **blueprint.settings})

    def loss_of(truth: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        posterior = model.encode(truth).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        output = model.decode(posterior.mean + posterior.std * noise.to(device)).sample
        side = truth.shape[-1] // posterior.mean.shape[-1]
        colours = torch.nn.functional.avg_pool2d(truth, side)
        anchor = (posterior.mean[:, :3] - colours).square().mean()
        loss = _error(output, truth) + _KL_WEIGHT * posterior.kl().mean() + _ANCHOR_WEIGHT * anchor
        assert isinstance(loss, torch.Tensor)
        return loss

    _train(blueprint, run, images, device, save_every, loss_of)


def train_decoder(
    blueprint: Blueprint, folder: Path, recipe: Recipe, images: int, device: str, save_every: int
) -> None:
    """Train the decoder further, with the encoder as it is, so that latents stay what they are."""
    torch.manual_seed(recipe.seed)
    autoencoder = build_autoencoder(blueprint.sizes)
    autoencoder.load_state_dict(averaged_weights(folder / AUTOENCODER))
    autoencoder = autoencoder.to(device, memory_format=torch.channels_last)
    model = torch.nn.ModuleDict({name: getattr(autoencoder, name) for name in _DECODING})
    run = Run(folder, "decoder", model, recipe, {"images": images, **blueprint.settings})

    def loss_of(truth: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        with torch.no_grad():
            latents = autoencoder.encode(truth).latent_dist.mean
        level = _DECODER_NOISE * torch.rand(len(latents), 1, 1, 1, generator=generator)
        noise = level * torch.randn(latents.shape, generator=generator)
        return _error(autoencoder.decode(latents + latents.std() * noise.to(device)).sample, truth)

    _train(blueprint, run, images, device, save_every, loss_of)


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
    loss_of: Callable[[torch.Tensor, torch.Generator], torch.Tensor],
) -> None:
    recipe = run.recipe
    store = torch.zeros(images, 3, 64, 64, dtype=torch.uint8)
    drawn = torch.zeros(images, dtype=torch.bool)
    check = pixels(blueprint, "validation", list(range(_VALIDATION_IMAGES))).to(device)
    losses: list[float] = []
    while run.step < recipe.steps:
        indices = batch_indices(images, recipe.batch, recipe.seed, run.step)
        for index in indices[~drawn[indices]].tolist():
            store[index] = torch.from_numpy(blueprint.data.rendered("train", index).image).permute(
                2, 0, 1
            )
            drawn[index] = True
        truth = store[indices].to(device).float() / 127.5 - 1.0
        truth = truth.contiguous(memory_format=torch.channels_last)
        loss = loss_of(truth, step_generator(recipe.seed, run.step))
        run.update(loss)
        losses.append(float(loss.detach()))
        if run.step % 200 == 0:
            run.log(loss=mean(losses), rate=recipe.rate_at(run.step - 1))
            losses.clear()
        if run.step % save_every == 0 or run.step == recipe.steps:
            run.save()
            run.log(validation_error=_validate(blueprint, run.path.parent, check))


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
