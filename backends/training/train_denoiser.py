"""Second stage of the training: text encoder and denoiser together, on latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from wordlight.backends.following import total
from wordlight.backends.training.blueprints import Blueprint
from wordlight.backends.training.denoisers import Denoiser, build_denoiser
from wordlight.backends.training.drawing import draw
from wordlight.backends.training.graphed import on_device, replayed
from wordlight.backends.training.latent_store import LatentStore, latent_scale
from wordlight.backends.training.networks import BETA_END
from wordlight.backends.training.places import PLACES_WEIGHT
from wordlight.backends.training.rendering import SHARD, token_ids
from wordlight.backends.training.train_autoencoder import trained_autoencoder
from wordlight.backends.training.training import (
    TIMESTEP_SHIFTS,
    MeanLosses,
    Recipe,
    Run,
    Setup,
    TimeLimit,
    epoch_order,
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

    def __init__(self, setup: Setup, autoencoder: AutoencoderKL, prompts: int) -> None:
        self._data, self._device = setup.blueprint.data, setup.device
        self._autoencoder, self._prompts = autoencoder, prompts
        store = LatentStore(replace(setup, workers=1), autoencoder, "validation", _LOSS_IMAGES)
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
        scenes = [self._data.rendered("validation", i).scene for i in range(self._prompts)]
        images = draw(model, self._autoencoder, [s.prompt for s in scenes], seed=0)
        found = total(
            self._data.judge(scene, image) for scene, image in zip(scenes, images, strict=True)
        )
        return found.shares()


def train_denoiser(
    setup: Setup,
    widths: tuple[int, ...],
    check_every: int = 1000,
    check_prompts: int = _FOLLOWING_PROMPTS,
    timestep_shifts: Mapping[int, float] = TIMESTEP_SHIFTS,
    bfloat16: bool = False,
    compiled: bool = False,
    minutes: float | None = None,
) -> None:
    """Train, or go on training, until ``setup.recipe.steps``.

    Args:
        setup: as of every stage. On a GPU steps are replayed as a CUDA graph, unless ``eager``.
        widths: channels of the UNet's levels or the transformer's layers.
        check_every: the number of steps between tests of the model.
        check_prompts: the number of held-out prompts that are drawn to see how well they are
            followed.
        timestep_shifts: the shift of ``draw_timesteps`` by the step from which on it holds, 0 among
            them.
        bfloat16: compute products in it; weights and losses are float32.
        compiled: have the denoiser compiled by ``torch.compile`` first.
        minutes: after how long the run ends instead, with a cooldown over the last two fifths.
    """
    blueprint, recipe, device = setup.blueprint, setup.recipe, setup.device
    torch.manual_seed(recipe.seed)
    autoencoder = load_trained_autoencoder(blueprint, setup.folder, device)
    model: Denoiser = on_device(build_denoiser(blueprint, widths), device)
    facts: dict[str, Any] = {
        "images": setup.images,
        "widths": list(widths),
        "places_weight": PLACES_WEIGHT,
        "beta_end": BETA_END,
        **blueprint.settings,
        **({"bfloat16": True} if bfloat16 else {}),
        **({"compiled": True} if compiled else {}),
        "timestep_shifts": {str(step): shift for step, shift in timestep_shifts.items()},
    }
    run = Run(setup.folder, "denoiser", model, recipe, facts)
    store = LatentStore(setup, autoencoder, "train", setup.images)
    empty = token_ids(blueprint.tokens.build_tokenizer(), [""])
    validation = _Validation(setup, autoencoder, check_prompts)
    judged = build_denoiser(blueprint, widths).to(device).eval()
    kind = torch.device(device).type
    limit = None if minutes is None else TimeLimit(minutes)
    if compiled:
        model.compile_parts()

    def update(
        noisy: torch.Tensor,
        goal: torch.Tensor,
        times: torch.Tensor,
        ids: torch.Tensor,
        **places: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        # Cached casts of the weights would outlive the step that a graph is captured of.
        with torch.autocast(kind, torch.bfloat16, enabled=bfloat16, cache_enabled=False):
            text = model.encode(ids)
            output = model(noisy, times, text, ids)
        loss = (output.float() - goal).square().mean()
        places_loss = model.places.loss(text.float(), ids, places)
        run.apply(loss + PLACES_WEIGHT * places_loss)
        return {"loss": loss.detach(), "places": places_loss.detach()}

    step = replayed(update, device, setup.eager)
    losses = MeanLosses()
    while run.step < run.recipe.steps:
        inputs = _inputs(model, store, recipe, run.step, timestep_shifts, empty)
        run.begin_step()
        losses.add(step(**inputs))
        run.step += 1
        if run.step % 100 == 0:
            run.log(**losses.take(), rate=run.recipe.rate_at(run.step - 1))
            left = limit.steps_left(run.step) if limit else None
            if left is not None:
                run.cool_down(left)
                limit = None
        last = run.step == run.recipe.steps
        if run.step % setup.save_every == 0 or last:
            run.save()
        if run.step % check_every == 0 or last:
            judged.load_state_dict(run.average)
            run.log(**validation.loss(judged), **validation.following(judged))
    run.save(compact=True)


def _inputs(
    model: Denoiser,
    store: LatentStore,
    recipe: Recipe,
    step: int,
    timestep_shifts: Mapping[int, float],
    empty: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Return what a step learns from: it depends on nothing but the run's settings and ``step``."""
    shard_size = min(SHARD, store.images)
    visit, place = divmod(step, shard_size // recipe.batch)
    order = epoch_order(shard_size, recipe.seed, visit)
    chosen = order[place * recipe.batch : (place + 1) * recipe.batch]
    batch = store.batch(visit % (store.images // shard_size), chosen)
    generator = step_generator(recipe.seed, step)
    noise = torch.randn(batch["latents"].shape, generator=generator)
    times = draw_timesteps(recipe.batch, shift_at(timestep_shifts, step), generator)
    dropped = torch.rand(recipe.batch, generator=generator) < EMPTY_PROMPTS
    noisy, goal = model.noised(batch["latents"], noise, times)
    return {
        "noisy": noisy,
        "goal": goal,
        "times": times,
        "ids": torch.where(dropped[:, None], empty, batch["ids"]),
        "token_places": batch["token_places"].masked_fill(dropped[:, None, None], float("nan")),
        "named_places": batch["named_places"].masked_fill(dropped[:, None, None], float("nan")),
    }
