"""Completeness on the embedded model, on the latent grid, before any resizing."""

from __future__ import annotations

import numpy as np
import pytest

from wordlight.attribution import IntegratedGradients, KernelShap, Shapley
from wordlight.backends import load
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.trajectory import Trajectory

PROMPT = "a red circle to the left of two small blue squares on a black background."


@pytest.fixture(scope="module")
def scenes() -> TorchBackend:
    backend = load("scenes")
    assert isinstance(backend, TorchBackend)
    return backend


@pytest.fixture(scope="module")
def trajectory(scenes: TorchBackend) -> Trajectory:
    return scenes.sample(PROMPT, seed=0)


def integrated(
    scenes: TorchBackend,
    trajectory: Trajectory,
    steps: tuple[int, ...],
    words: list[str] | None = None,
    n_steps: int = 32,
) -> None:
    method = IntegratedGradients(scenes, steps=steps, n_steps=n_steps)
    _, delta = method.attribute(trajectory, words, return_convergence_delta=True)
    assert (delta.relative < 0.01).all()
    assert (delta.maximum < 0.05).all()


@pytest.mark.slow
def test_integrated_gradients_share_out_the_push(
    scenes: TorchBackend, trajectory: Trajectory
) -> None:
    """The step at which the path bends the most, in phrases: their slopes are the words' sums.
    Every word at every step is under the slow marker."""
    phrases = ["a red circle", "two small blue squares", "on a black background"]
    integrated(scenes, trajectory, trajectory.at_steps(4)[:1], phrases, n_steps=16)


@pytest.mark.slow
def test_integrated_gradients_at_every_default_step(
    scenes: TorchBackend, trajectory: Trajectory
) -> None:
    integrated(scenes, trajectory, trajectory.at_steps(4))


@pytest.mark.parametrize(
    ("method", "n_samples"), [(Shapley, 2), (KernelShap, 40)], ids=["shapley", "kernel-shap"]
)
def test_shapley_values_share_out_the_push(
    scenes: TorchBackend,
    trajectory: Trajectory,
    method: type[Shapley] | type[KernelShap],
    n_samples: int,
) -> None:
    """What is left is float32's rounding."""
    maps, delta = method(scenes, steps=2, n_samples=n_samples).attribute(
        trajectory, return_convergence_delta=True
    )
    assert (delta.maximum < 1e-5).all()
    # There is something to share out, and what is shared is what the maps hold.
    assert (delta.target.max((1, 2)) > 1e-3).all()
    total, shared = delta.target.mean(0), maps.data.values.sum(0)
    assert np.abs(shared - total).max() < 1e-5 * total.max()
    if method is Shapley:
        # The first position sees nothing but itself, so its embedding is the empty prompt's: a
        # dummy. (KernelSHAP of few sets gives dummies what the regression leaves.)
        start = np.abs(np.asarray(maps["<start>"])).max()
        assert start < 1e-5 * float(np.abs(maps.data.values).max())
