"""Second stage of the training: text encoder and denoiser together, on latents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from wordlight.backends.following import total
from wordlight.backends.training.blueprints import Blueprint
from wordlight.backends.training.denoisers import Denoiser, build_denoiser
from wordlight.backends.training.drawing import draw
from wordlight.backends.training.latent_store import SHARD, LatentStore, latent_scale, token_ids
from wordlight.backends.training.networks import (
    BETA_END,
)
from wordlight.backends.training.places import PLACES_WEIGHT
from wordlight.backends.training.train_autoencoder import trained_autoencoder
from wordlight.backends.training.training import (
    TIMESTEP_SHIFTS,
    Recipe,
    Run,
    epoch_order,
    mean,
    shift_at,
    step_generator,
)

#: Share of prompts replaced by the empty one, so that guidance has something to push away from.
EMPTY_PROMPTS = 0.1
#: Validation losses are taken at these timesteps, always with the same noise.
_LOSS_STEPS = (100, 300, 500, 700, 900)
_LOSS_IMAGES = 100
_FOLLOWING_PROMPTS = 64
#: Share of the timesteps drawn evenly; the others lie where the prompt tells the most (see below).
_EVEN_SHARE = 0.2


def draw_timesteps(count: int, shift: float, generator: torch.Generator) -> torch.Tensor:
    """Timesteps of a batch, stratified: mostly where what an image shows is decided.

    A fifth are even over 0 to 999; the others are ``1000 sigmoid(n + shift)``, n standard normal
    (Esser et al. 2024, section 3.1). Shapes are decided in the middle (a shift of 0 or so), where
    things lie only above 850 (a shift of 2): below, the noisy image tells.
    """
    places = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    normal = torch.special.ndtri(places.clamp(1e-6, 1 - 1e-6))
    middle = torch.sigmoid(normal + shift)
    even = torch.rand(count, generator=generator) < _EVEN_SHARE
    other = torch.rand(count, generator=generator)
    times: torch.Tensor = (torch.where(even, other, middle) * 1000).long().clamp(0, 999)
    return times


def load_trained_autoencoder(blueprint: Blueprint, folder: Path, device: str) -> AutoencoderKL:
    """The autoencoder of a run, with its scaling factor set."""
    autoencoder = trained_autoencoder(blueprint, folder).to(device).eval().requires_grad_(False)
    autoencoder.register_to_config(scaling_factor=latent_scale(blueprint, autoencoder, device))
    return autoencoder


class _Validation:
    """Loss and prompt-following over held-out prompts, always with the same random numbers."""

    def __init__(
        self,
        blueprint: Blueprint,
        folder: Path,
        autoencoder: AutoencoderKL,
        device: str,
        prompts: int,
    ) -> None:
        self._blueprint, self._autoencoder = blueprint, autoencoder
        self._device, self._prompts = device, prompts
        store = LatentStore(blueprint, folder, autoencoder, "validation", _LOSS_IMAGES, device)
        held_out = store.batch(0, torch.arange(_LOSS_IMAGES))
        self._latents, self._ids = held_out["latents"], held_out["ids"]

    def loss(self, model: Denoiser) -> dict[str, float]:
        """Mean squared error of the prediction at each of a few timesteps."""
        noise = torch.randn(self._latents.shape, generator=step_generator(1, 0))
        losses = {}
        with torch.no_grad():
            ids = self._ids.to(self._device)
            text = model.encode(ids)
            for t in _LOSS_STEPS:
                times = torch.full((_LOSS_IMAGES,), t)
                noisy, goal = model.noised(self._latents, noise, times)
                output = model(noisy.to(self._device), times.to(self._device), text, ids)
                losses[f"loss@{t}"] = float((output.cpu() - goal).square().mean())
        return losses

    def following(self, model: Denoiser) -> dict[str, float]:
        """Return the share of right answers by kind, at 20 steps and guidance 3."""
        scenes = [
            self._blueprint.data.rendered("validation", i).scene for i in range(self._prompts)
        ]
        images = draw(model, self._autoencoder, [s.prompt for s in scenes], seed=0)
        found = total(
            self._blueprint.data.judge(scene, image)
            for scene, image in zip(scenes, images, strict=True)
        )
        return found.shares()


def train_denoiser(
    blueprint: Blueprint,
    folder: Path,
    recipe: Recipe,
    images: int,
    device: str,
    save_every: int,
    check_every: int,
    widths: tuple[int, ...],
    check_prompts: int = _FOLLOWING_PROMPTS,
    timestep_shifts: Mapping[int, float] = TIMESTEP_SHIFTS,
) -> None:
    """Train, or go on training, until ``recipe.steps``.

    ``check_prompts`` is how many held-out prompts are drawn to see how well they are followed;
    ``timestep_shifts`` the shift of ``draw_timesteps`` from each of some steps on, 0 among them.
    """
    torch.manual_seed(recipe.seed)
    autoencoder = load_trained_autoencoder(blueprint, folder, device)
    # Convolutions are a fifth faster with the channels last.
    model = build_denoiser(blueprint, widths).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    facts: dict[str, Any] = {
        "images": images,
        "widths": list(widths),
        "places_weight": PLACES_WEIGHT,
        "beta_end": BETA_END,
        **blueprint.settings,
        "timestep_shifts": {str(step): shift for step, shift in timestep_shifts.items()},
    }
    run = Run(folder, "denoiser", model, recipe, facts)
    store = LatentStore(blueprint, folder, autoencoder, "train", images, device)
    empty = token_ids(blueprint.tokens.build_tokenizer(), [""])
    validation = _Validation(blueprint, folder, autoencoder, device, check_prompts)
    judged = build_denoiser(blueprint, widths).to(device).eval()
    shard_size = min(SHARD, images)
    shards = images // shard_size
    losses: list[tuple[float, float]] = []
    while run.step < recipe.steps:
        visit, place = divmod(run.step, shard_size // recipe.batch)
        order = epoch_order(shard_size, recipe.seed, visit)
        chosen = order[place * recipe.batch : (place + 1) * recipe.batch]
        batch = store.batch(visit % shards, chosen)
        latents = batch["latents"]
        generator = step_generator(recipe.seed, run.step)
        noise = torch.randn(latents.shape, generator=generator)
        times = draw_timesteps(recipe.batch, shift_at(timestep_shifts, run.step), generator)
        dropped = torch.rand(recipe.batch, generator=generator) < EMPTY_PROMPTS
        ids = torch.where(dropped[:, None], empty, batch["ids"]).to(device)
        goals = {
            name: batch[name].masked_fill(dropped[:, None, None], float("nan")).to(device)
            for name in ("token_places", "named_places")
        }
        noisy, goal = model.noised(latents, noise, times)
        text = model.encode(ids)
        output = model(noisy.to(device), times.to(device), text, ids)
        loss = (output - goal.to(device)).square().mean()
        places_loss = model.places.loss(text, ids, goals)
        run.update(loss + PLACES_WEIGHT * places_loss)
        losses.append((float(loss.detach()), float(places_loss.detach())))
        if run.step % 100 == 0:
            of_images, of_places = (mean(column) for column in zip(*losses, strict=True))
            run.log(loss=of_images, places=of_places, rate=recipe.rate_at(run.step - 1))
            losses.clear()
        if run.step % save_every == 0 or run.step == recipe.steps:
            run.save()
        if run.step % check_every == 0 or run.step == recipe.steps:
            judged.load_state_dict(run.average)
            run.log(**validation.loss(judged), **validation.following(judged))
    run.save(compact=True)
