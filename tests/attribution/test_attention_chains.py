"""Attention chains: walks on paper, a plain implementation, and eigenvalues that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from wordlight.attribution import AttentionChains, TokenRank
from wordlight.attribution.methods.attention_average import average_on_grid
from wordlight.attribution.methods.attention_chains import stationary, walk
from wordlight.attribution.methods.self_attention import second_eigenvalue
from wordlight.attribution.testing import check_attributor
from wordlight.attribution.testing.model import ToyModel
from wordlight.backends.attention import AttentionQuery
from wordlight.backends.trajectory import Trajectory

#: So little that it doesn't show: walks on paper have none.
NONE = 1e-12


def test_a_walk_on_paper() -> None:
    """Places a, b, c and one word w: a attends to w, b half to a and half to w, c to b."""
    attention = np.array([[0, 0, 0, 1], [0.5, 0, 0, 0.5], [0, 1, 0, 0]])
    # From w to a and b, as 1 to 0.5. Then from a back to w, from b half to a and half to w.
    on_paper = {1: [2 / 3, 1 / 3, 0], 2: [1 / 6, 0, 0], 3: [5 / 9, 5 / 18, 0]}
    for bounces, wanted in on_paper.items():
        assert np.allclose(walk(attention, bounces, NONE), [wanted], atol=1e-9)
    # A tenth of each bounce goes to the four states alike.
    once = 0.9 * np.array([2 / 3, 1 / 3, 0]) + 0.1 / 4
    assert np.allclose(walk(attention, 1, 0.1), [once])


def test_the_ranks_on_paper() -> None:
    """Two places that attend to each other and never to the text have the same rank."""
    attention = np.array([[0, 1, 0.0], [1, 0, 0]])
    ranks = stationary(attention, 0.1)
    # Of the word: 0.1/3 from teleports, and as much as it goes on to itself: r = 1/30 + 0.9 r / 3.
    word = 1 / 30 / 0.7
    assert np.allclose(ranks, [(1 - word) / 2, (1 - word) / 2, word])
    rows = np.random.default_rng(1).dirichlet(np.ones(7), size=5)
    tokens = np.concatenate([(rows[:, 5:] / rows[:, 5:].sum(0)).T, np.zeros((2, 2))], axis=1)
    chain = 0.97 * np.concatenate([rows, tokens]) + 0.03 / 7
    far = np.linalg.matrix_power(chain, 2000)[0]
    assert np.allclose(stationary(rows, 0.03), far, atol=1e-12)


def test_second_eigenvalues_that_are_known() -> None:
    # Stays with probability p: eigenvalues 1 and 2p - 1.
    assert second_eigenvalue(np.array([[0.9, 0.1], [0.1, 0.9]])) == pytest.approx(0.8)
    assert second_eigenvalue(np.array([[0.2, 0.8], [0.8, 0.2]])) == pytest.approx(0.6)
    assert second_eigenvalue(np.full((5, 5), 0.2)) == pytest.approx(0, abs=1e-7)
    assert second_eigenvalue(np.ones((1, 1))) == 0
    # A walk around a ring of 100, that stays half the time: (1 + cos(2π/100)) / 2.
    ring = 0.5 * np.eye(100) + 0.25 * (np.eye(100, k=1) + np.eye(100, k=-1))
    ring[0, -1] = ring[-1, 0] = 0.25
    assert second_eigenvalue(ring) == pytest.approx((1 + np.cos(2 * np.pi / 100)) / 2, abs=1e-9)


@pytest.mark.parametrize("weighted", [True, False])
def test_maps_by_hand(weighted: bool) -> None:
    """Step by step with plain loops, from the attention of each head."""
    model = ToyModel()
    trajectory = model.sample("a red circle", seed=0)
    weighting: Any = "second-eigenvalue" if weighted else "equal"
    maps = AttentionChains(model, bounces=2, head_weighting=weighting).attribute(trajectory)
    ranks = TokenRank(model, head_weighting=weighting).attribute(trajectory)
    tokens, places = len(trajectory.tokens), int(np.prod(trajectory.grid))
    n = places + tokens
    walked, visited = np.zeros((tokens, places)), np.zeros(places)
    for step in range(trajectory.steps):
        own = np.zeros((places, places))
        heads = AttentionQuery(kind="self", layers=("fine",), keep=("head",))
        total = 0.0
        for mean in model.attention(trajectory, heads, (step,)).means:
            matrix = mean.values.reshape(places, places).T.astype(float)
            weight = np.sort(np.abs(np.linalg.eigvals(matrix)))[-2] if weighted else 1.0
            own, total = own + weight * matrix, total + weight
        chain = np.zeros((n, n))
        chain[:places, :places] = own / total / 2
        chain[:places, places:] = told(model, trajectory, step).T / 2
        chain[:places] /= chain[:places].sum(1, keepdims=True)
        for token in range(tokens):
            to_token = chain[:places, places + token]
            chain[places + token, :places] = to_token / to_token.sum()
        pushed = 0.99 * chain + 0.01 / n
        for token in range(tokens):
            start = np.zeros(n)
            start[places + token] = 1
            walked[token] += (start @ pushed @ pushed)[:places] / trajectory.steps
        long = np.full(n, 1 / n)
        for _ in range(3000):
            long = 0.99 * long @ chain + 0.01 / n
        visited += long[:places] / trajectory.steps
    red = trajectory.tokens.texts.index("red")
    found = np.asarray(maps["red"]).ravel()
    # Attention is averaged in float32.
    assert np.allclose(found, walked[red], rtol=1e-3, atol=1e-5 * found.max())
    assert np.allclose(np.asarray(ranks["red"]).ravel(), visited, rtol=1e-3, atol=1e-7)
    assert np.array_equal(np.asarray(ranks["red"]), np.asarray(ranks["circle"]))


def told(model: ToyModel, trajectory: Trajectory, step: int) -> npt.NDArray[Any]:
    """DAAM's maps of a step, token by token: ``(tokens, places)``."""
    means = model.attention(trajectory, AttentionQuery(), (step,))
    maps, _ = average_on_grid(means, trajectory.grid)
    return maps.clip(0).reshape(len(maps), -1)


def test_conformance_of_the_options() -> None:
    check_attributor(lambda b: AttentionChains(b, bounces=1, head_weighting="equal"))


def test_what_they_refuse() -> None:
    model = ToyModel()
    with pytest.raises(ValueError, match="bounces must be 1 or more, not 0"):
        AttentionChains(model, bounces=0)
    with pytest.raises(ValueError, match="teleport must be above 0 and below 1, not 1"):
        TokenRank(model, teleport=1)
    with pytest.raises(ValueError, match="head_weighting must be 'equal' or 'second-eigenvalue'"):
        AttentionChains(model, head_weighting="both")  # type: ignore[arg-type]
