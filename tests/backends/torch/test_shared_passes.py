"""Several images in one pass of the denoiser: maps are those of one image at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import BaseTorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from wordlight.attribution import (
    DAAM,
    InputXGradient,
    NoiseTunnel,
    Occlusion,
    SelfAttentionRefined,
    TextImageAttributor,
)
from wordlight.attribution.question import Answer, Question
from wordlight.backends.backend import Conditioning
from wordlight.backends.gathering import gather
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.trajectory import Trajectory

PROMPTS = ["a red circle", "two blue squares and a cross", "green"]


@pytest.fixture(scope="module")
def runs(backend: TorchBackend) -> list[Trajectory]:
    """Without their predictions, to which a replay would hold itself under a hook like ours."""
    drawn = backend.sample(PROMPTS, seed=5, steps=2)
    return [replace(run, predictions=None) for run in drawn]


@contextmanager
def rows_of_passes(backend: TorchBackend) -> Iterator[list[int]]:
    """The latents' rows of each pass of the denoiser."""
    seen: list[int] = []
    hook = backend.pipe.unet.register_forward_pre_hook(
        lambda _module, _args, told: seen.append(len(told["sample"])), with_kwargs=True
    )
    try:
        yield seen
    finally:
        hook.remove()


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (DAAM, {}),
        (SelfAttentionRefined, {"steps": 1}),
        (Occlusion, {"steps": 1}),
        pytest.param(InputXGradient, {"steps": 1}, marks=pytest.mark.slow),
        pytest.param(InputXGradient, {"steps": 1, "wrt": "tokens"}, marks=pytest.mark.slow),
    ],
)
def test_maps_are_those_of_one_image_at_a_time(
    backend: TorchBackend,
    runs: list[Trajectory],
    method: type[TextImageAttributor],
    options: dict[str, Any],
) -> None:
    asked = method(backend, **options)
    with rows_of_passes(backend) as apart:
        alone = [asked.attribute(run) for run in runs]
    before = backend.evaluations.forward_equivalents
    with rows_of_passes(backend) as shared:
        together = asked.attribute(runs)
    assert len(shared) < len(apart)
    spent = backend.evaluations.forward_equivalents - before
    assert spent == sum(maps.provenance.forward_equivalents for maps in alone)
    for one, other in zip(together, alone, strict=True):
        scale = float(np.abs(other.data.values).max())
        # Float32's rounding, in another order: of differences of predictions a few 1e-5.
        np.testing.assert_allclose(one.data.values, other.data.values, atol=5e-5 * scale)
        assert one.prompt == other.prompt
        assert one.provenance.forward_equivalents == other.provenance.forward_equivalents
        assert one.provenance.seconds > 0


def test_all_images_go_through_one_pass(backend: TorchBackend, runs: list[Trajectory]) -> None:
    with rows_of_passes(backend) as seen:
        DAAM(backend).attribute(runs)
    assert seen == [2 * len(runs)]


def test_gradients_share_a_pass(backend: TorchBackend, runs: list[Trajectory]) -> None:
    def gradient(run: Trajectory) -> Any:
        latents = backend.asarray(run.latents[:1])
        told = Conditioning(backend.asarray(run.embeddings[None]))
        return backend.denoise_vjp(latents, float(run.timesteps[0]), told, latents)

    alone = [gradient(run) for run in runs]
    with rows_of_passes(backend) as seen:
        together: list[Any] = gather([partial(gradient, run) for run in runs])
    assert seen == [len(runs)]
    for one, other in zip(together, alone, strict=True):
        assert (one - other).abs().max() <= 5e-5 * other.abs().max()


def test_a_noise_tunnel_shares_the_passes_of_its_method(
    backend: TorchBackend, runs: list[Trajectory]
) -> None:
    tunnel = NoiseTunnel(Occlusion(backend, steps=1), nt_samples=1)
    together = tunnel.attribute(runs[:2])
    alone = tunnel.attribute(runs[1])
    scale = float(np.abs(alone.data.values).max())
    np.testing.assert_allclose(together[1].data.values, alone.data.values, atol=5e-5 * scale)


def test_an_internal_batch_size_keeps_images_apart(
    backend: TorchBackend, runs: list[Trajectory]
) -> None:
    with rows_of_passes(backend) as seen:
        Occlusion(backend, steps=1).attribute(runs, internal_batch_size=2)
    assert max(seen) == 2


def test_latents_of_another_size_have_passes_of_their_own(
    backend: TorchBackend, runs: list[Trajectory]
) -> None:
    side = runs[0].image.shape[0]
    wider = backend.sample("a red circle", seed=1, steps=2, width=2 * side)
    wider = replace(wider, predictions=None)
    with rows_of_passes(backend) as seen:
        maps = DAAM(backend).attribute([runs[0], wider, runs[1]])
    assert sorted(seen) == [2, 4]
    assert maps[1].data.values.shape[1:] == wider.grid


class _RefusesTwo(DAAM):
    name = "refuses-two"

    def _attribute(self, question: Question) -> Answer:
        found = super()._attribute(question)
        if "blue" in question.trajectory.prompt:
            raise RuntimeError("not blue")
        return found


def test_what_fails_is_one_image_alone(backend: TorchBackend, runs: list[Trajectory]) -> None:
    first, second, third = _RefusesTwo(backend).attempt_each(runs)
    assert isinstance(second, RuntimeError)
    assert (first.prompt, third.prompt) == (PROMPTS[0], PROMPTS[2])
    with pytest.raises(RuntimeError, match="not blue"):
        _RefusesTwo(backend).attribute(runs)


@pytest.mark.slow  # forward mode, image by image and together
def test_memory_that_runs_out_halves_what_images_share(
    backend: TorchBackend, runs: list[Trajectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.limits = type(backend.limits)(backend.is_out_of_memory, backend.release_memory)
    whole = type(backend)._denoise_jvp_of_images

    def short(self: TorchBackend, latents: Any, *rest: Any) -> Any:
        if latents.shape[0] > 1:
            raise MemoryError
        return whole(self, latents, *rest)

    alone = InputXGradient(backend, steps=1).attribute(runs[0])
    monkeypatch.setattr(type(backend), "_denoise_jvp_of_images", short)
    try:
        maps = InputXGradient(backend, steps=1).attribute(runs)
    finally:
        backend.limits = type(backend.limits)(backend.is_out_of_memory, backend.release_memory)
    assert all(one.provenance.halvings >= 1 for one in maps)
    scale = float(np.abs(alone.data.values).max())
    np.testing.assert_allclose(maps[0].data.values, alone.data.values, atol=5e-5 * scale)


SETTINGS = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default device": lambda: torch.device("meta"),
    "mode": BaseTorchFunctionMode,
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "hooks": lambda: torch.autograd.graph.saved_tensors_hooks(lambda x: x * 3, lambda x: x * 2),
    "flops": lambda: FlopCounterMode(display=False),
    "nothing": lambda: torch.set_grad_enabled(True),
}


def seen_by_torch() -> list[Any]:
    """What settings change, as it is for the thread that asks."""
    weight = torch.ones(2, 2, device="cpu", requires_grad=True)
    product = weight @ weight
    if product.requires_grad:
        product.sum().backward()
    return [
        product.dtype,
        product.is_inference(),
        torch.empty(1).device.type,
        torch.is_grad_enabled(),
        torch.overrides._get_current_function_mode_stack(),
        torch.utils._python_dispatch._get_current_dispatch_mode_stack(),
        None if weight.grad is None else weight.grad.tolist(),
    ]


@pytest.mark.parametrize("name", SETTINGS)
def test_threads_have_the_settings_of_their_caller(backend: TorchBackend, name: str) -> None:
    usual = seen_by_torch()
    with SETTINGS[name]():
        here = seen_by_torch()
        assert gather([seen_by_torch] * 2, backend.settings_of_thread()) == [here, here]
        assert seen_by_torch() == here
    assert (here == usual) == (name == "nothing")
    assert seen_by_torch() == usual


def test_images_together_are_cast_as_one_is(backend: TorchBackend, runs: list[Trajectory]) -> None:
    asked = DAAM(backend, steps=1)
    exact = asked.attribute(runs[0])
    with torch.autocast("cpu", torch.bfloat16):
        alone, (together, _) = asked.attribute(runs[0]), asked.attribute(runs[:2])
    scale = float(np.abs(alone.data.values).max())

    def distance(one: Any) -> float:
        return float(np.abs(one.data.values - alone.data.values).max()) / scale

    # A product of bfloat16 is rounded alike in a larger batch, but for where sums are cut.
    assert distance(together) < distance(exact) / 4
