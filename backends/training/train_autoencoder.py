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
from wordlight.backends.training.rendering import render_images
from wordlight.backends.training.training import (
    MeanLosses,
    Run,
    Setup,
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


def train_autoencoder(setup: Setup) -> None:
    """Train, or go on training, until ``setup.recipe.steps``."""
    torch.manual_seed(setup.recipe.seed)
    model = on_device(build_autoencoder(setup.blueprint.sizes), setup.device)

    def loss_of(truth: torch.Tensor, noise: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        posterior = model.encode(truth).latent_dist
        output = model.decode(posterior.mean + posterior.std * noise).sample
        side = truth.shape[-1] // posterior.mean.shape[-1]
        colours = torch.nn.functional.avg_pool2d(truth, side)
        anchor = (posterior.mean[:, :3] - colours).square().mean()
        loss = _error(output, truth) + _KL_WEIGHT * posterior.kl().mean() + _ANCHOR_WEIGHT * anchor
        assert isinstance(loss, torch.Tensor)
        return loss

    _train(setup, "autoencoder", model, loss_of)


def train_decoder(setup: Setup) -> None:
    """Train the decoder further, with the encoder as it is, so that latents stay what they are."""
    torch.manual_seed(setup.recipe.seed)
    autoencoder = build_autoencoder(setup.blueprint.sizes)
    autoencoder.load_state_dict(averaged_weights(setup.folder / AUTOENCODER))
    autoencoder = on_device(autoencoder, setup.device)
    model = torch.nn.ModuleDict({name: getattr(autoencoder, name) for name in _DECODING})

    def loss_of(truth: torch.Tensor, noise: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            latents = autoencoder.encode(truth).latent_dist.mean
        noisy = latents + latents.std() * _DECODER_NOISE * level * noise
        return _error(autoencoder.decode(noisy).sample, truth)

    _train(setup, "decoder", model, loss_of)


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
    setup: Setup,
    stage: str,
    model: torch.nn.Module,
    loss_of: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    """Train on rendered images; ``loss_of`` gets them, normal noise and uniform levels of it."""
    recipe, blueprint, device = setup.recipe, setup.blueprint, setup.device
    facts = {"images": setup.images, **blueprint.settings}
    run = Run(setup.folder, stage, model, recipe, facts)
    drawn = render_images(blueprint, "train", setup.images, setup.workers)
    sizes = blueprint.sizes
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

    step = replayed(update, device, setup.eager)
    losses = MeanLosses()
    while run.step < recipe.steps:
        generator = step_generator(recipe.seed, run.step)
        shape = (recipe.batch, sizes.latent_channels, side, side)
        noise = torch.randn(shape, generator=generator)
        level = torch.rand(recipe.batch, 1, 1, 1, generator=generator)
        chosen = batch_indices(setup.images, recipe.batch, recipe.seed, run.step)
        run.begin_step()
        losses.add(step(images=drawn[chosen], noise=noise, level=level))
        run.step += 1
        if run.step % 200 == 0:
            run.log(**losses.take(), rate=recipe.rate_at(run.step - 1))
        if run.step % setup.save_every == 0 or run.step == recipe.steps:
            run.save()
            run.log(validation_error=_validate(blueprint, setup.folder, check))


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
