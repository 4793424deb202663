"""A linear, a bilinear and a saturating model, for which every method's answer stands on paper."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.toys import Formula, Pairs, ToyBackend, toy_trajectory
from wordlight.attribution import (
    GradientShap,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    Occlusion,
    Shapley,
    TextImageAttributor,
)
from wordlight.attribution.question import Question
from wordlight.attribution.words import PromptWords
from wordlight.backends.trajectory import Trajectory

#: Every number is float64; sums of some hundred terms of order 10 round to this.
ROUNDING = 1e-12


def shares(method: TextImageAttributor, trajectory: Trajectory) -> npt.NDArray[Any]:
    """The players' maps as they were computed, before ``AttributionMaps`` keeps them in float32."""
    question = Question(
        trajectory,
        PromptWords.of(trajectory.tokens).players,
        (0,),
        trajectory.empty_embeddings,
    )
    return np.asarray(method._attribute(question).maps.values)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (InputXGradient, {}),
        (IntegratedGradients, {"n_steps": 1}),
        (IntegratedGradients, {"n_steps": 5}),
        (IntegratedGradients, {"n_steps": 3, "method": "riemann_left"}),
        (IntegratedGradients, {"n_steps": 3, "method": "riemann_right"}),
        (IntegratedGradients, {"n_steps": 3, "method": "riemann_middle"}),
        (IntegratedGradients, {"n_steps": 3, "method": "riemann_trapezoid"}),
        (GradientShap, {"n_samples": 2}),
        (Occlusion, {}),
        (Shapley, {"n_samples": 1}),
        (Shapley, {"n_samples": 3}),
        (KernelShap, {"n_samples": 40}),
    ],
)
def test_on_a_linear_model_all_are_equal(
    method: type[TextImageAttributor], options: dict[str, Any]
) -> None:
    """On ε = x + A·E a player's share is ⟨A_w·(E - E°)_w, g/‖g‖⟩, whatever the path or the set."""
    backend, trajectory = ToyBackend(), toy_trajectory(steps=1)
    delta = trajectory.embeddings - trajectory.empty_embeddings
    pushes = np.einsum("cyxtd,td->tcyx", backend.jacobian, delta)
    push = pushes.sum(0)
    norm = np.linalg.norm(push, axis=0)
    by_token = (pushes * push / norm).sum(1)
    players = PromptWords.of(trajectory.tokens).players
    wanted = np.stack([by_token[list(player.tokens)].sum(0) for player in players])
    found = shares(method(backend, **options), trajectory)
    assert np.abs(found - wanted).max() < ROUNDING * np.abs(wanted).max()
    assert np.abs(found.sum(0) - norm).max() < ROUNDING * norm.max()


def spelled(prompt: str, embeddings: list[float], empty: list[float]) -> Trajectory:
    """A run in which words have these numbers, and nothing else has any."""
    made = toy_trajectory(prompt, steps=1)
    ends = []
    for numbers in (embeddings, empty):
        end = np.zeros_like(made.embeddings)
        end[1 : 1 + len(numbers), 0] = numbers
        ends.append(end)
    return replace(made, embeddings=ends[0], empty_embeddings=ends[1])


def words_shares(
    method: TextImageAttributor, trajectory: Trajectory, count: int
) -> npt.NDArray[Any]:
    """The words' numbers, the same at every pixel; special positions have none."""
    found = shares(method, trajectory)
    assert np.abs(found - found[:, :1, :1]).max() < ROUNDING
    assert np.abs(found[count:]).max() < ROUNDING
    return np.asarray(found[:count, 0, 0])


@pytest.mark.parametrize(
    ("method", "options", "wanted"),
    [
        # A word's step times the mean of the other's ends: 1·(3 - 1)/2 and 4·(2 + 1)/2.
        (IntegratedGradients, {"n_steps": 1}, (1, 6, 1)),
        (IntegratedGradients, {"n_steps": 8}, (1, 6, 1)),
        (Shapley, {"n_samples": math.factorial(6)}, (1, 6, 1)),
        # A word's step times the other's end at E: what they do together is counted twice.
        (Occlusion, {}, (3, 8, 1)),
        (InputXGradient, {}, (3, 8, 1)),
    ],
)
def test_a_bilinear_model(
    method: type[TextImageAttributor], options: dict[str, Any], wanted: tuple[float, ...]
) -> None:
    """f = e1·e2 + e3 - (e1·e2 + e3 at E°), from (1, -1, 0) to (2, 3, 1): a push of 8."""
    trajectory = spelled("one two three", [2.0, 3.0, 1.0], [1.0, -1.0, 0.0])
    found = words_shares(method(Pairs(), **options), trajectory, 3)
    assert np.abs(found - wanted).max() < ROUNDING
    complete = method in (IntegratedGradients, Shapley)
    assert (abs(found.sum() - 8) < ROUNDING) == complete


def saturating(e: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(np.tanh(e.sum(1)))


def saturating_slope(e: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(np.broadcast_to(1 / np.cosh(e.sum(1, keepdims=True)) ** 2, e.shape))


@pytest.mark.parametrize(
    ("method", "options", "wanted"),
    [
        (IntegratedGradients, {"n_steps": 32}, (np.tanh(3) * 2 / 3, np.tanh(3) / 3)),
        (
            Shapley,
            {"n_samples": math.factorial(5)},
            (
                (np.tanh(2) + np.tanh(3) - np.tanh(1)) / 2,
                (np.tanh(1) + np.tanh(3) - np.tanh(2)) / 2,
            ),
        ),
        (Occlusion, {}, (np.tanh(3) - np.tanh(1), np.tanh(3) - np.tanh(2))),
        (InputXGradient, {}, (2 / np.cosh(3) ** 2, 1 / np.cosh(3) ** 2)),
    ],
)
def test_a_saturating_model(
    method: type[TextImageAttributor], options: dict[str, Any], wanted: tuple[float, ...]
) -> None:
    """f = tanh(e1 + e2) from 0 to (2, 1): at its end the slope has all but gone."""
    trajectory = spelled("one two", [2.0, 1.0], [0.0, 0.0])
    found = words_shares(method(Formula(saturating, saturating_slope), **options), trajectory, 2)
    # 32 Gauss-Legendre nodes integrate sech² over 0..3 to rounding.
    assert np.abs(found - wanted).max() < 1e-10
    complete = method in (IntegratedGradients, Shapley)
    assert (abs(found.sum() - np.tanh(3)) < 1e-10) == complete
    if method is InputXGradient:
        assert found.sum() < 0.05 * np.tanh(3)
