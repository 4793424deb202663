"""Replays of several steps in one pass of the denoiser."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.backends.torch.tiny import build_tiny_pipe
from wordlight.backends import AttentionQuery
from wordlight.backends.torch.backend import TorchBackend, rows_together
from wordlight.backends.trajectory import Trajectory

STEPS = 11


@pytest.fixture(scope="module")
def backend() -> TorchBackend:
    """In double precision: in single the order in which convolutions of several rows add up, which
    is the processor's, moves a probability by some 1e-5."""
    pipe = build_tiny_pipe().to(torch.float64)
    return TorchBackend(pipe, model_id="tiny", steps=3, guidance_scale=3.0)


@pytest.fixture(scope="module")
def trajectory(backend: TorchBackend) -> Trajectory:
    return backend.sample("a red circle", seed=2, steps=STEPS)


def rows_of_passes(backend: TorchBackend, *asked: object) -> list[int]:
    """The rows of each pass of the denoiser that one question about attention takes."""
    seen: list[int] = []
    hook = backend.pipe.unet.register_forward_pre_hook(
        lambda _module, _args, told: seen.append(len(told["sample"])), with_kwargs=True
    )
    try:
        backend.attention(*asked)  # type: ignore[arg-type]
    finally:
        hook.remove()
    return seen


def test_steps_are_replayed_together(backend: TorchBackend, trajectory: Trajectory) -> None:
    everything = tuple(range(STEPS))
    assert rows_of_passes(backend, trajectory, AttentionQuery(), everything) == [8, 3]


@pytest.mark.parametrize("kind", ["cross", "self"])
@pytest.mark.parametrize("keep", [(), ("step",), ("step", "layer", "head"), ("head",)])
def test_steps_together_are_the_steps_one_by_one(
    backend: TorchBackend, trajectory: Trajectory, kind: str, keep: tuple[str, ...]
) -> None:
    query = AttentionQuery(kind=kind, keep=keep, heads=(1,))  # type: ignore[arg-type]
    steps = (9, 0, 4)
    alone = [backend.attention(trajectory, query, (step,)).means for step in steps]
    together = backend.attention(trajectory, query, steps).means
    if "step" in keep:
        assert {mean.step for mean in together} == set(steps)
    for mean in together:
        same = [
            one
            for means in alone
            for one in means
            if (one.values.shape, one.layer, one.head) == (mean.values.shape, mean.layer, mean.head)
            and one.step == mean.step
        ]
        assert mean.count == sum(one.count for one in same)
        average = np.average(
            [one.values for one in same], axis=0, weights=[one.count for one in same]
        )
        # What is told is rounded to single precision.
        np.testing.assert_allclose(mean.values, average, atol=1e-7)


def test_each_step_by_itself(backend: TorchBackend, trajectory: Trajectory) -> None:
    query = AttentionQuery(kind="self", keep=("layer",))
    everything = tuple(range(STEPS))
    found = list(backend.attention_by_step(trajectory, query, everything))
    assert len(found) == STEPS
    for step, means in zip(everything, found, strict=True):
        alone = backend.attention(trajectory, query, (step,))
        for one, other in zip(means.means, alone.means, strict=True):
            assert (one.step, one.layer, one.count) == (None, other.layer, other.count)
            np.testing.assert_allclose(one.values, other.values, atol=1e-7)


def test_large_latents_take_fewer_rows_together(trajectory: Trajectory) -> None:
    large = replace(trajectory, latents=np.zeros((STEPS, 4, 128, 128), np.float32))
    assert rows_together(large, AttentionQuery()) == 2
    assert rows_together(large, AttentionQuery(kind="self")) == 1
    assert rows_together(trajectory, AttentionQuery(kind="self")) > 8


def test_what_has_no_row_of_its_own_is_told_step_by_step(trajectory: Trajectory) -> None:
    """A scale that changes from step to step is one number of a whole pass."""
    scales = {"+cross_attention_kwargs.scale=": np.linspace(0, 1, STEPS, dtype=np.float32)}
    changing = replace(trajectory, step_added=scales)
    assert rows_together(changing, AttentionQuery()) == 1
    same = replace(trajectory, added={"+cross_attention_kwargs.scale=": np.float32(1)})
    assert rows_together(same, AttentionQuery()) > 8
