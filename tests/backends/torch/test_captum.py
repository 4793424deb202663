"""Captum, unmodified, on this library's models: its answers are ours."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import permutations
from math import factorial
from typing import Any

import numpy as np
import pytest
import torch
from captum import attr

from tests.backends.torch.captum_cases import (
    QUIET,
    ROOT,
    STEP,
    Case,
    ReversibleToy,
    make_case,
    tiny,
)
from tests.toys import toy_trajectory
from wordlight.attribution import (
    InputXGradient,
    IntegratedGradients,
    Occlusion,
    Shapley,
)
from wordlight.attribution.captum.region import (
    captum_forward,
    word_input,
)
from wordlight.attribution.targets import PredictionNorm, Region
from wordlight.backends import load

pytestmark = QUIET


@pytest.fixture(scope="module", params=["tiny-float32", "tiny-float64", "scenes"])
def case(request: pytest.FixtureRequest) -> Case:
    if request.param == "scenes":
        return make_case(load("scenes"), 1e-4)
    if request.param == "tiny-float32":
        return make_case(tiny(torch.float32), 1e-4, size=16)
    return make_case(tiny(torch.float64), 1e-9, size=16)


def test_players(case: Case) -> None:
    assert case.words.values == ["a", "red", "circle", ".", "<special>"]
    covered = sorted(t for player in case.words.players for t in player.tokens)
    assert covered == list(range(len(case.trajectory.tokens)))
    total = (case.forward.steps[0].total.numpy() * case.region).sum()
    # The prompt pushes there: what follows is relative to this.
    assert total > 1e-3
    assert case.forward(case.forward.inputs).item() == pytest.approx(total, rel=1e-4)
    assert abs(case.forward(torch.zeros_like(case.forward.inputs)).item()) < 1e-4 * total


@pytest.mark.parametrize("n_steps", [2, 5])
def test_integrated_gradients(case: Case, n_steps: int) -> None:
    answer = attr.IntegratedGradients(case.forward).attribute(case.forward.inputs, n_steps=n_steps)
    ours = case.ours(IntegratedGradients, n_steps=n_steps)
    # Captum rounds the nodes' weights to float32, whatever the inputs (two nodes' are halves).
    rounding = 2.0**-22 if n_steps > 2 else 0.0
    assert case.distance(case.words.format_attr(answer), ours) <= case.tolerance + rounding


def test_input_x_gradient(case: Case) -> None:
    answer = attr.InputXGradient(case.forward).attribute(case.forward.inputs)
    ours = case.ours(InputXGradient)
    assert case.distance(case.words.format_attr(answer), ours) <= case.tolerance


def test_feature_ablation(case: Case) -> None:
    ours = case.ours(Occlusion)
    masked = attr.FeatureAblation(case.forward).attribute(
        case.forward.inputs, feature_mask=case.words.feature_mask
    )
    assert case.distance(case.words.format_attr(masked, "group"), ours) <= case.tolerance
    features = attr.FeatureAblation(case.words).attribute(case.words.to_tensor())
    assert case.distance(case.words.format_attr(features), ours) <= case.tolerance


def test_exact_shapley_values(case: Case) -> None:
    ours = case.ours(Shapley, n_samples=factorial(5))
    asked: list[torch.Tensor] = []

    def forward(present: torch.Tensor) -> torch.Tensor:
        asked.append(case.words(present))
        return asked[-1]

    answer = attr.ShapleyValues(forward).attribute(case.words.to_tensor())
    # Captum adds 120 orders up in float32.
    assert case.distance(answer, ours) <= max(case.tolerance, 1e-5)
    # The same sums over the same values, which Captum asked for, in float64.
    empty, *values = [float(value.detach()) for value in asked]
    exact = torch.zeros((1, 5), dtype=torch.float64)
    for order in permutations(range(5)):
        before = empty
        for player in order:
            exact[0, player] += (values[0] - before) / factorial(5)
            before = values.pop(0)
    assert not values
    assert case.distance(exact, ours) <= case.tolerance


@pytest.mark.parametrize("weighting", ["epsilon", "equal"])
def test_the_mean_over_steps(toy: ReversibleToy, weighting: Any) -> None:
    trajectory = toy_trajectory()
    forward = captum_forward(toy, trajectory, step_weighting=weighting)
    words = word_input(forward, trajectory)
    scores = words.format_attr(attr.InputXGradient(forward).attribute(forward.inputs))
    ours = InputXGradient(toy, step_weighting=weighting).attribute(trajectory)
    # Maps are kept in float32: 24 pixels of order 1.
    assert np.abs(scores[0].numpy() - ours.data.values.sum((1, 2))).max() < 1e-4
    one = InputXGradient(toy, step_weighting=weighting, steps=(STEP,)).attribute(trajectory)
    assert np.abs(scores[0].numpy() - one.data.values.sum((1, 2))).max() > 1e-2


def test_the_encoders_input(small: Case) -> None:
    forward = captum_forward(small.backend, small.trajectory, steps=[STEP], wrt="tokens")
    words = word_input(forward, small.trajectory)
    scores = words.format_attr(attr.InputXGradient(forward).attribute(forward.inputs))
    method = InputXGradient(small.backend, steps=(STEP,), wrt="tokens")
    ours = method.attribute(small.trajectory).data.values
    outer = InputXGradient(small.backend, steps=(STEP,)).attribute(small.trajectory).data.values
    total = float(forward.steps[0].total.sum())
    # float32 through encoder and network, forwards here and backwards there.
    assert np.abs(scores[0].numpy() - ours.sum((1, 2))).max() < 1e-4 * total
    assert np.abs(outer - ours).sum((1, 2)).max() > 1e-2 * total


@pytest.mark.parametrize("target", [PredictionNorm(), Region(np.eye(4, 6))])
def test_other_targets_and_baselines(toy: ReversibleToy, target: Any) -> None:
    rng = np.random.default_rng(5)
    trajectory = replace(toy_trajectory(), negative_embeddings=rng.standard_normal((12, 5)))
    asked = {"target": target, "baselines": "negative"}
    forward = captum_forward(toy, trajectory, steps=[STEP], **asked)
    scores = word_input(forward, trajectory).format_attr(
        attr.IntegratedGradients(forward).attribute(forward.inputs, n_steps=4)
    )
    method = IntegratedGradients(toy, steps=(STEP,), n_steps=4)
    ours = method.attribute(trajectory, **asked).data.values.sum((1, 2))
    assert np.abs(scores[0].numpy() - ours).max() < 1e-4


def test_the_pages_code_runs() -> None:
    page = (ROOT / "docs" / "captum.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) == 6
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert names["smooth"].shape == (1, len(names["method"].players), *names["trajectory"].grid)
    assert names["maps"].data.shape[1:] == (2, 2)
    assert float(names["error"]) >= 0
    assert float(names["change"]) > 0
    # Shapley values share the region's whole push out.
    total = names["forward"](names["forward"].inputs).item()
    assert float(names["shapley"].sum()) == pytest.approx(total, rel=1e-4)
