"""The primitives of the PyTorch backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

from tests.backends.torch.tiny import build_tiny_pipe
from wordlight.backends import Conditioning, Trajectory
from wordlight.backends.arrays_file import FileFormatError
from wordlight.backends.tokens import PromptTooLongError
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.noise import NoiseLevels

PROMPT = "a red circle and two blue triangles"


def test_an_image_depends_on_its_own_seed_alone(backend: TorchBackend) -> None:
    alone = backend.sample(PROMPT, seed=5)
    batch = backend.sample(["a green square", PROMPT], seed=[9, 5])
    assert isinstance(batch, list)
    # Batches of another size sum in another order: float32 rounding over three steps.
    assert np.abs(batch[1].latents - alone.latents).max() < 1e-4
    many = backend.sample(PROMPT, seed=4, images_per_prompt=2)
    assert isinstance(many, list)
    assert [t.seed for t in many] == [4, 5]
    assert np.abs(many[1].latents - alone.latents).max() < 1e-4
    assert np.abs(many[0].latents - alone.latents).max() > 0.1


def test_what_a_sample_remembers(backend: TorchBackend) -> None:
    made = backend.sample(
        PROMPT, negative_prompt="a cross", guidance_scale=2.5, height=40, width=64
    )
    assert made.latents.shape == (3, 4, 20, 32)
    assert made.image.shape == (40, 64, 3)
    assert made.guidance_scale == 2.5
    assert made.negative_prompt == "a cross"
    assert made.negative_embeddings is not None
    with torch.no_grad():
        states = backend.encode([PROMPT, "a cross", ""]).embeddings.numpy()
    # Encoded in another batch: float32 rounding.
    assert np.abs(made.embeddings - states[0]).max() < 1e-5
    assert np.abs(made.negative_embeddings - states[1]).max() < 1e-5
    assert np.abs(made.empty_embeddings - states[2]).max() < 1e-5
    unguided = backend.sample(PROMPT, guidance_scale=1.0)
    assert unguided.negative_embeddings is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": ""}, "empty"),
        ({"prompts": "  "}, "empty"),
        ({"prompts": []}, "no prompt"),
        ({"prompts": PROMPT, "height": 33}, "height must be a positive multiple of 8"),
        ({"prompts": PROMPT, "steps": 0}, "steps must be"),
        ({"prompts": PROMPT, "seed": -1}, "seed must be"),
        ({"prompts": [PROMPT, PROMPT], "seed": [1]}, "1 seeds for 2 images"),
        ({"prompts": PROMPT, "images_per_prompt": 0}, "images_per_prompt"),
    ],
)
def test_bad_requests(backend: TorchBackend, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        backend.sample(**arguments)


def test_a_prompt_beyond_the_context(backend: TorchBackend) -> None:
    with pytest.raises(PromptTooLongError, match=r"has 40 tokens .* reads only 30: .*cut off"):
        backend.sample("red " * 40)


def test_sampling_restores_the_pipeline(backend: TorchBackend) -> None:
    before = dict(backend.pipe._progress_bar_config)
    backend.sample(PROMPT)
    assert backend.pipe._progress_bar_config == before
    assert "encode_prompt" not in vars(backend.pipe)


def test_trajectories_travel_by_file(backend: TorchBackend, tmp_path: Path) -> None:
    made = backend.sample(PROMPT, seed=3)
    made.save(tmp_path / "t.safetensors")
    back = Trajectory.load(tmp_path / "t.safetensors")
    assert (back.latents == made.latents).all()
    assert (back.tokens, back.prompt, back.seed) == (made.tokens, PROMPT, 3)
    (tmp_path / "t.safetensors").write_bytes(b"nonsense")
    with pytest.raises(FileFormatError):
        Trajectory.load(tmp_path / "t.safetensors")


def test_denoise_agrees_with_the_run(backend: TorchBackend) -> None:
    """One guided DDIM step from stored latents gives the next stored latents."""
    made = backend.sample(PROMPT, guidance_scale=3.0, seed=2)
    states = np.stack([made.empty_embeddings, made.embeddings])
    latents = backend.asarray(np.stack([made.latents[0]] * 2))
    with torch.no_grad():
        empty, asked = backend.denoise(
            latents, made.timesteps[0], Conditioning(backend.asarray(states))
        )
    guided = empty + 3.0 * (asked - empty)
    levels = NoiseLevels(backend.pipe.scheduler)
    (alpha, sigma), (next_alpha, next_sigma) = (levels.at(t) for t in made.timesteps[:2])
    clean = (latents[0] - sigma * guided) / alpha
    wanted = next_alpha * clean + next_sigma * guided
    # float32 rounding, through a division by the first step's small alpha.
    assert np.abs(wanted.numpy() - made.latents[1]).max() < 1e-4 * np.abs(wanted.numpy()).max()


def test_predictions_come_in_epsilon_units() -> None:
    """Noising known data: what each kind of prediction should be, converted, is the noise."""
    for kind in ("epsilon", "v_prediction", "sample"):
        scheduler = build_tiny_pipe(kind).scheduler
        levels = NoiseLevels(scheduler)
        clean, noise = torch.randn(2, 1, 4, 4, 4, dtype=torch.float64)
        for time in (1, 500, 999):
            t = torch.tensor([time])
            noisy = scheduler.add_noise(clean, noise, t)
            said = {
                "epsilon": noise,
                "v_prediction": scheduler.get_velocity(clean, noise, t),
                "sample": clean,
            }[kind]
            # The scheduler's table is float32; at t = 1 sigma is 0.04, which enlarges its rounding.
            assert (levels.epsilon_at(time)(said, noisy) - noise).abs().max() < 1e-4
    assert levels.at(0.5)[0] == pytest.approx((levels.at(0)[0] + levels.at(1)[0]) / 2, abs=1e-6)


# diffusers' Euler scheduler makes numpy arrays of tensors in the way that numpy 2 warns about.
@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)
def test_other_schedulers_scale_their_input() -> None:
    """Euler scales what the UNet sees: the trajectory has it as the UNet saw it."""
    pipe = build_tiny_pipe("v_prediction")
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    made = TorchBackend(pipe, steps=4).sample(PROMPT)
    assert np.std(made.latents[0]) < 1.5
    assert made.steps == 4


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_jvp_equals_central_differences(prediction: str) -> None:
    backend = TorchBackend(build_tiny_pipe(prediction).to(torch.float64))
    rng = np.random.default_rng(0)
    latents = backend.asarray(rng.standard_normal((1, 4, 16, 24)))
    point = backend.asarray(rng.standard_normal((1, 32, 24)))
    tangents = backend.asarray(rng.standard_normal((5, 32, 24)))
    with torch.no_grad():
        value, ours = backend.denoise_jvp(latents, 400, Conditioning(point), tangents)
        assert torch.allclose(value, backend.denoise(latents, 400, Conditioning(point)))
        step = 1e-5
        ahead, behind = (
            backend.denoise(
                latents.expand(5, -1, -1, -1), 400, Conditioning(point + sign * tangents)
            )
            for sign in (step, -step)
        )
    differences = (ahead - behind) / (2 * step)
    # Central differences: an error of step² times the third derivative, and rounding / step.
    assert ((ours - differences).norm() / differences.norm()) < 1e-6
    assert backend.evaluations.jvp == 5
    assert backend.evaluations.forward == 11
    with pytest.raises(ValueError, match="one row at a time"):
        backend.denoise_jvp(latents.expand(2, -1, -1, -1), 400, Conditioning(point), tangents)


def test_noising_a_given_image(backend: TorchBackend) -> None:
    image = np.random.default_rng(0).integers(0, 255, (32, 48, 3)).astype(np.uint8)
    (made,) = backend.invert([image], [PROMPT], seed=1, steps=4)
    assert made.latents.shape == (4, 4, 16, 24)
    assert made.noise_source == "noising"
    levels = NoiseLevels(backend.pipe.scheduler)
    # The same clean latents and the same noise at every step: two steps tell the other two.
    system = np.array([levels.at(t) for t in made.timesteps])
    clean, noise = np.linalg.solve(system[[0, -1]], made.latents[[0, -1]].reshape(2, -1))
    for (alpha, sigma), latents in zip(system, made.latents, strict=True):
        assert np.abs(alpha * clean + sigma * noise - latents.ravel()).max() < 1e-4
    assert abs(noise.std() - 1) < 0.1
    with pytest.raises(ValueError, match="uint8"):
        backend.invert([image.astype(float)], [PROMPT])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="1 images for 2 prompts"):
        backend.invert([image], [PROMPT, PROMPT])


def test_a_decoder_that_gives_no_numbers_is_an_error(shared_pipe: StableDiffusionPipeline) -> None:
    """Cast to bytes they would be black pixels."""
    bias = shared_pipe.vae.decoder.conv_out.bias
    kept = bias.detach().clone()
    try:
        with torch.no_grad():
            bias.fill_(float("nan"))
        with pytest.raises(ValueError, match="pixels that are no numbers"):
            TorchBackend(shared_pipe).sample("a red circle", steps=1)
    finally:
        with torch.no_grad():
            bias.copy_(kept)
