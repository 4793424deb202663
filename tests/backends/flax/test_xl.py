"""Stable Diffusion XL against diffusers' own pipeline, with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from tests.backends.flax import models
from wordlight.attribution import DAAM, NoiseDifference, Occlusion
from wordlight.backends import (
    Conditioning,
    Trajectory,
    load,
    trace,
)
from wordlight.backends.backend import MissingCapabilityError
from wordlight.backends.flax.backend import FlaxBackend
from wordlight.backends.torch.backend import TorchBackend

PROMPT = "a red circle"
#: Not square, so that height and width can't be taken for each other.
RUN: dict[str, Any] = {"height": 16, "width": 24}
#: float32's rounding, in sums of other orders, relative to the largest value.
_VALUES = 1e-5


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionXLPipeline:
    made = models.torch_xl_pipeline()
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def xl_folder(pipe: StableDiffusionXLPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.saved(pipe, tmp_path_factory.mktemp("xl"))


@pytest.fixture(scope="module")
def backend(xl_folder: Path) -> FlaxBackend:
    made = load(xl_folder, framework="flax")
    assert isinstance(made, FlaxBackend)
    return made


class Recorded:
    """What diffusers' UNet is asked in a run, and its cross-attention of the prompt's rows."""

    def __init__(self, pipe: StableDiffusionXLPipeline, noise: np.ndarray, **options: Any) -> None:
        self.latents: list[np.ndarray] = []
        self.added: dict[str, np.ndarray] = {}
        self.embeddings = np.zeros(0)
        self.maps: list[dict[str, np.ndarray]] = []
        before = dict(pipe.unet.attn_processors)
        captured = models.Captured().on(pipe.unet)

        def note(_module: Any, inputs: Any, given: Any, _output: Any) -> None:
            self.latents.append(inputs[0].numpy().copy())
            self.embeddings = given["encoder_hidden_states"].numpy()
            self.added = {k: v.numpy() for k, v in given["added_cond_kwargs"].items()}
            self.maps.append({k: v[1] for k, v in captured.probabilities.items() if "attn2" in k})

        handle = pipe.unet.register_forward_hook(note, with_kwargs=True)
        try:
            with torch.no_grad():
                self.image = pipe(
                    PROMPT,
                    num_inference_steps=5,
                    guidance_scale=5.0,
                    latents=torch.tensor(noise[None]),
                    output_type="np",
                    **RUN,
                    **options,
                ).images[0]
        finally:
            handle.remove()
            pipe.unet.set_attn_processor(before)


def close(ours: Any, theirs: Any, tolerance: float = _VALUES) -> None:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


# diffusers' Euler scheduler makes numpy arrays of tensors in the way that numpy 2 warns about.
@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)
@pytest.mark.parametrize(
    "negative", [None, "", "two blue squares"], ids=["zeros", "empty", "a-prompt"]
)
def test_a_guided_run_is_diffusers_own(
    pipe: StableDiffusionXLPipeline, backend: FlaxBackend, tmp_path: Path, negative: str | None
) -> None:
    """With nothing to guide away from, diffusers takes zeros, and not the empty prompt; asked for,
    that is a prompt like others."""
    noise = np.random.default_rng(3).standard_normal((4, 8, 12), np.float32)
    theirs = Recorded(pipe, noise, negative_prompt=negative)
    with trace(backend) as traced:
        backend.sample(PROMPT, seed=3, steps=5, negative_prompt=negative, **RUN)
    traced.trajectories[0].save(tmp_path / "run.safetensors")
    run = Trajectory.load(tmp_path / "run.safetensors")
    close(run.latents, np.stack([latents[1] for latents in theirs.latents]))
    assert np.abs(run.image / 255 - theirs.image).max() <= 1 / 255
    close(run.embeddings, theirs.embeddings[1])
    assert run.negative_embeddings is not None
    assert np.abs(run.negative_embeddings - theirs.embeddings[0]).max() <= _VALUES
    assert (run.negative_embeddings == 0).all() == (negative is None)
    assert run.negative_prompt == negative
    for name in ("text_embeds", "time_ids"):
        close(run.added[name], theirs.added[name][1])
        assert np.abs(run.negative_added[name] - theirs.added[name][0]).max() <= _VALUES
    assert run.added["time_ids"].tolist() == [16, 24, 0, 0, 16, 24]
    assert run.empty_added["text_embeds"].any()

    # The same average by hand: over steps, layers and heads, all of one grid.
    wanted = np.mean(
        [maps.mean(0).T.reshape(-1, 4, 6) for step in theirs.maps for maps in step.values()], axis=0
    )
    (mean,) = traced.attention[0].means
    assert np.abs(mean.values - wanted).max() <= 1e-6
    # And of the trajectory, as it was stored.
    maps = [DAAM.from_trace(traced).data.values, DAAM(backend).attribute(run).data.values]
    assert np.abs(maps[0] - maps[1]).max() <= 1e-6


@pytest.mark.slow
def test_methods_hold_the_added_conditioning(backend: FlaxBackend) -> None:
    run = backend.sample(PROMPT, seed=3, steps=5, **RUN)
    assert run.guidance_scale == 5.0
    maps = Occlusion(backend, steps=1).attribute(run)
    assert np.abs(maps.data.values).max() > 0
    with pytest.raises(MissingCapabilityError, match="encode_from"):
        backend.encode_from(backend.asarray(run.embeddings[None]))
    (noised,) = backend.invert([run.image], [PROMPT], seed=1, steps=2)
    assert noised.added["time_ids"].tolist() == [16, 24, 0, 0, 16, 24]
    with pytest.raises(ValueError, match="takes text_embeds, time_ids as further conditioning"):
        backend.denoise(backend.asarray(run.latents[:1]), 1.0, Conditioning(run.embeddings[None]))


@pytest.mark.slow
def test_a_prompt_without_a_word_is_still_of_the_run_s_size(
    backend: FlaxBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which isn't the model's own; the pooled text is the shorter prompt's."""
    run = backend.sample(PROMPT, seed=3, steps=5, **RUN)
    asked: list[Conditioning] = []
    denoise = backend.denoise

    def listening(latents: Any, timestep: float, conditioning: Conditioning) -> Any:
        asked.append(conditioning)
        return denoise(latents, timestep, conditioning)

    monkeypatch.setattr(backend, "denoise", listening)
    NoiseDifference(backend, steps=1).attribute(run)
    rows = [row for one in asked for row in np.asarray(one.added["time_ids"]).tolist()]
    assert rows == [[16, 24, 0, 0, 16, 24]] * len(rows)
    assert len(rows) > 1
    pooled = np.concatenate([np.asarray(one.added["text_embeds"]) for one in asked])
    close(pooled[0], run.added["text_embeds"])
    assert (np.abs(pooled[1:] - pooled[0]).max(axis=1) > 1e-3).all()


def test_a_trajectory_of_another_kind_of_model_is_refused(
    backend: FlaxBackend, theirs: TorchBackend, ours: FlaxBackend
) -> None:
    run = backend.sample(PROMPT, seed=3, steps=5, **RUN)
    for other in (theirs, ours):
        with pytest.raises(ValueError, match="takes none as further conditioning, not text_embeds"):
            DAAM(other).attribute(run)


def test_random_weights_reach_both_text_encoders(backend: FlaxBackend) -> None:
    before = backend.encode([PROMPT])
    with backend.randomized("text_encoder"):
        during = backend.encode([PROMPT])
    width = 8
    assert np.abs(before.embeddings - during.embeddings)[..., :width].max() > 0.01
    assert np.abs(before.embeddings - during.embeddings)[..., width:].max() > 0.01


def test_pytorch_explains_the_same_run_alike(backend: FlaxBackend, xl_folder: Path) -> None:
    run = backend.sample(PROMPT, seed=3, steps=2, **RUN)
    here, there = (DAAM(one).attribute(run).data for one in (backend, load(xl_folder)))
    assert np.abs(here - there).max() <= _VALUES * np.abs(there).max()
