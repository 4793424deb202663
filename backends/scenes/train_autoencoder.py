"""First stage of the training: the autoencoder, on rendered images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from wordlight.backends.scenes.networks import build_autoencoder
from wordlight.backends.scenes.render import rendered
from wordlight.backends.scenes.training import (
    Recipe,
    Run,
    batch_indices,
    mean,
    step_generator,
)

#: With 1e-6, as Stable Diffusion has it, two of the four channels went unused here.
_KL_WEIGHT = 1e-7
#: Three latent channels are held to the mean colour of the pixels they stand for, so that all
#: channels are alive and of like size.
_ANCHOR_WEIGHT = 1.0
_VALIDATION_IMAGES = 64


def pixels(split: str, indices: list[int]) -> torch.Tensor:
    """Rendered images as ``(batch, 3, 64, 64)`` in -1..1."""
    images = np.stack([rendered(split, index).image for index in indices])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def train_autoencoder(
    folder: Path, recipe: Recipe, images: int, device: str, save_every: int
) -> None:
    """Train, or go on training, until ``recipe.steps``."""
    torch.manual_seed(recipe.seed)
    model = build_autoencoder().to(device, memory_format=torch.channels_last)
    run = Run(folder, "autoencoder", model, recipe, {"images": images})
    store = torch.zeros(images, 3, 64, 64, dtype=torch.uint8)
    drawn = torch.zeros(images, dtype=torch.bool)
    check = pixels("validation", list(range(_VALIDATION_IMAGES))).to(device)
    losses: list[float] = []
    while run.step < recipe.steps:
        indices = batch_indices(images, recipe.batch, recipe.seed, run.step)
        for index in indices[~drawn[indices]].tolist():
            store[index] = torch.from_numpy(rendered("train", index).image).permute(2, 0, 1)
            drawn[index] = True
        truth = store[indices].to(device).float() / 127.5 - 1.0
        truth = truth.contiguous(memory_format=torch.channels_last)
        posterior = model.encode(truth).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=step_generator(recipe.seed, run.step))
        output = model.decode(posterior.mean + posterior.std * noise.to(device)).sample
        error = output - truth
        colours = torch.nn.functional.avg_pool2d(truth, 4)
        anchor = (posterior.mean[:, :3] - colours).square().mean()
        loss = (
            error.abs().mean()
            + error.square().mean()
            + _KL_WEIGHT * posterior.kl().mean()
            + _ANCHOR_WEIGHT * anchor
        )
        run.update(loss)
        losses.append(float(loss.detach()))
        if run.step % 200 == 0:
            run.log(loss=mean(losses), rate=recipe.rate_at(run.step - 1))
            losses.clear()
        if run.step % save_every == 0 or run.step == recipe.steps:
            run.log(validation_error=_validate(run, check))
            run.save()


def _validate(run: Run, check: torch.Tensor) -> float:
    """Mean absolute error, in grey levels of 255, of the averaged weights."""
    model = build_autoencoder().to(check.device)
    model.load_state_dict(run.average)
    with torch.no_grad():
        output = model(check).sample.clamp(-1, 1)
    return float((output - check).abs().mean() * 127.5)
