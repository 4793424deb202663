"""Integrated gradients, saliency and Shapley values against answers known on paper."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toys import Pairs, ToyBackend, toy_trajectory
from wordlight.attribution import InputXGradient, IntegratedGradients, Saliency, Shapley
from wordlight.attribution.methods.path_rules import PathRule, path_nodes
from wordlight.attribution.probes import root_mean_square_bias, root_sum_square
from wordlight.backends.backend import Conditioning

TRAJECTORY = toy_trajectory(steps=1)
DELTA = TRAJECTORY.embeddings - TRAJECTORY.empty_embeddings


def norm_of_push(backend: ToyBackend) -> np.ndarray:
    both = np.stack([TRAJECTORY.embeddings, TRAJECTORY.empty_embeddings])
    asked, empty = backend._denoise(TRAJECTORY.latents, 0.0, Conditioning(both))
    return np.asarray(np.linalg.norm(asked - empty, axis=0))


def test_complete_where_the_model_saturates() -> None:
    backend = ToyBackend(bend="saturating")
    norm = norm_of_push(backend)
    plain = InputXGradient(backend).attribute(TRAJECTORY).data.values.sum(0)
    integrated = IntegratedGradients(backend, n_steps=256).attribute(TRAJECTORY).data.values.sum(0)
    assert np.abs(plain - norm).sum() > 0.1 * norm.sum()
    # tanh of pushes around 10 is a steep step on the path; 256 nodes resolve it.
    assert np.abs(integrated - norm).sum() < 1e-3 * norm.sum()
    shapley = Shapley(backend, n_samples=3).attribute(TRAJECTORY).data.values.sum(0)
    # Telescoping: exact whatever the number of orders, but for float32 maps.
    assert np.abs(shapley - norm).max() < 1e-5 * norm.max()


@pytest.mark.parametrize(
    "rule",
    ["gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid"],
)
def test_path_rules_are_captums(rule: PathRule) -> None:
    from captum.attr._utils.approximation_methods import approximation_parameters

    weights, places = (np.array(v(9)) for v in approximation_parameters(rule))
    ours = path_nodes(rule, 9)
    # Captum's are float32.
    assert np.allclose(ours[0], places, atol=1e-6)
    # Captum's trapezoid has end nodes of 1/(2n) and others of 1/n, which sum to less than 1.
    assert np.allclose(ours[1], weights / weights.sum(), atol=1e-6)
    assert ours[1].sum() == pytest.approx(1.0)
    assert weights.sum() == pytest.approx(8 / 9 if rule == "riemann_trapezoid" else 1.0)


def test_path_rules_refuse() -> None:
    with pytest.raises(ValueError, match="n_steps of riemann_trapezoid must be 2"):
        path_nodes("riemann_trapezoid", 1)
    with pytest.raises(ValueError, match=r"'gausslegendre', .* or 'riemann_trapezoid', not"):
        IntegratedGradients(ToyBackend(), method="simpson")  # type: ignore[arg-type]


def exact_slopes(backend: ToyBackend, position: int) -> np.ndarray:
    """‖∂f_yx/∂E_w‖ of the linear toy: the row norms of Σ_c u_c A_c."""
    push = np.einsum("cyxtd,td->cyx", backend.jacobian, DELTA)
    direction = push / np.linalg.norm(push, axis=0)
    row = np.einsum("cyx,cyxd->yxd", direction, backend.jacobian[:, :, :, position])
    return np.asarray(np.linalg.norm(row, axis=-1))


def test_saliency_converges_to_the_row_norms() -> None:
    backend = ToyBackend()
    found = Saliency(backend, probes=4000).attribute(TRAJECTORY)
    wanted = exact_slopes(backend, 2)
    # A relative standard error of 1/√8000 = 1.1 %; five of them over 24 pixels.
    assert (np.abs(np.asarray(found["red"]) / wanted - 1) < 0.056).all()
    assert Saliency(backend, probes=4000).relative_error == pytest.approx(
        1 / math.sqrt(8000), rel=0.01
    )


def test_saliency_is_unbiased_at_few_probes() -> None:
    backend = ToyBackend()
    wanted = exact_slopes(backend, 2)
    ratios = [
        np.asarray(Saliency(backend, probes=4, seed=s).attribute(TRAJECTORY)["red"]) / wanted
        for s in range(500)
    ]
    # All pixels see a seed's probes, so they vary together, and seeds independently.
    means = np.mean(ratios, axis=(1, 2))
    error = means.std(ddof=1) / math.sqrt(len(means))
    # Five standard errors, 4 %; without the correction the mean would be 6 % low.
    assert 5 * error < 0.75 * (1 - root_mean_square_bias(4))
    assert abs(means.mean() - 1) < 5 * error
    assert np.std(ratios, axis=0).mean() == pytest.approx(
        Saliency(backend, probes=4).relative_error, rel=0.05
    )
    assert root_mean_square_bias(1) == pytest.approx(math.sqrt(2 / math.pi))


def test_saliency_merges_by_root_of_squares() -> None:
    maps = Saliency(ToyBackend(), probes=4000).attribute(TRAJECTORY)
    both = [np.asarray(maps["red"]), np.asarray(maps["circle", 0])]
    assert np.allclose(np.asarray(maps["red circle"]), np.hypot(*both), rtol=1e-4)
    assert maps.provenance.probes == 4000 * TRAJECTORY.steps
    assert not Saliency(ToyBackend()).multiplies_by_inputs


def pairs_trajectory(prompt: str = "one two three four"):  # type: ignore[no-untyped-def]
    made = toy_trajectory(prompt, steps=1)
    return replace(
        made,
        embeddings=np.full_like(made.embeddings, 2.0),
        empty_embeddings=np.zeros_like(made.embeddings),
    )


def test_shapley_of_a_product() -> None:
    """f = e1·e2 + e3 at e = 2: the product's 4 is shared equally, word 3 has its 2."""
    maps = Shapley(Pairs(), n_samples=200).attribute(pairs_trajectory())
    # 200 orders: the share of orders in which word 1 comes last has a standard error of 3.5 %.
    assert np.asarray(maps["one"]).mean() == pytest.approx(2, abs=0.6)
    assert np.asarray(maps["two"]).mean() == pytest.approx(2, abs=0.6)
    assert np.allclose(np.asarray(maps["three"]), 2, atol=1e-5)
    assert np.allclose(np.asarray(maps["four"]), 0, atol=1e-6)
    # Together they always have all of it.
    assert np.allclose(np.asarray(maps["one two"]), 4, atol=1e-5)


def test_exact_enumeration_is_symmetric() -> None:
    backend, trajectory = Pairs(), pairs_trajectory()
    maps = Shapley(backend, n_samples=math.factorial(5)).attribute(trajectory, words=["three four"])
    # Players: one, two, "three four" and three special positions are six: not yet exact.
    assert len(maps) == 6
    exact = Shapley(backend, n_samples=math.factorial(6)).attribute(
        trajectory, words=["three four"]
    )
    assert np.allclose(np.asarray(exact["one"]), np.asarray(exact["two"]), atol=1e-6)
    assert np.allclose(np.asarray(exact["one"]), 2, atol=1e-6)
    assert exact.provenance.forward == 2 + 5 * math.factorial(6)


#: Far enough from zero that float32 maps resolve them.
SIZES = st.floats(0.25, 3).map(lambda size: round(size, 3))


@settings(max_examples=20)
@given(SIZES, SIZES, SIZES)
def test_exact_shapley_values_are_symmetric_and_give_dummies_zero(
    first: float, second: float, third: float
) -> None:
    """f = e1·e2 + e3 for any e: words 1 and 2 do the same for every set, and have half each."""
    trajectory = pairs_trajectory("one two three")
    embeddings = trajectory.embeddings.copy()
    embeddings[1:4, 0] = first, second, third
    trajectory = replace(trajectory, embeddings=embeddings)
    exact = Shapley(Pairs(), n_samples=math.factorial(6)).attribute(trajectory)
    wanted = {"one": first * second / 2, "two": first * second / 2, "three": third}
    for word, value in wanted.items():
        assert np.allclose(np.asarray(exact[word]), value, rtol=1e-5)
    for dummy in ("<start>", "<end>", "<pad>"):
        assert np.abs(np.asarray(exact[dummy])).max() < 1e-6
    # An order alone: dummies have zero all the same.
    once = Shapley(Pairs(), n_samples=1).attribute(trajectory)
    assert np.abs(np.asarray(once["<pad>"])).max() < 1e-6


@given(st.integers(1, 6), st.integers(0, 10))
def test_shapley_always_sums_to_the_push(n_samples: int, seed: int) -> None:
    backend = ToyBackend(bend="saturating")
    norm = norm_of_push(backend)
    maps = Shapley(backend, n_samples=n_samples, seed=seed).attribute(TRAJECTORY)
    assert np.abs(maps.data.values.sum(0) - norm).max() < 1e-5 * norm.max()


def test_orders_are_those_of_every_permutation() -> None:
    method = Shapley(ToyBackend(), n_samples=24)
    assert sorted(method._orders(4, 1.0)) == sorted(permutations(range(4)))
    assert method._orders(5, 1.0) == method._orders(5, 1.0)
    assert method._orders(5, 1.0) != method._orders(5, 2.0)


def test_a_phrase_merged_from_few_probes_is_put_right() -> None:
    maps = Saliency(ToyBackend(), probes=1, steps=1).attribute(TRAJECTORY)
    both = np.stack([np.asarray(maps[key]) for key in ("red", ("circle", 0))])
    merged = np.asarray(maps["red circle"])
    assert np.allclose(merged, root_sum_square(both, 1), rtol=1e-6)
    ratio = merged / np.hypot(*both)
    # Two equal estimates count as four probes, and one beside nothing as its own.
    assert ratio.min() >= float(root_mean_square_bias(1) / root_mean_square_bias(4)) - 1e-6
    assert ratio.min() < 0.95
    assert ratio.max() < 1


@pytest.mark.parametrize("norms", [[1, 1], [1, 0.5], [1, 0.2], [1, 1, 1], [1] * 6])
@pytest.mark.parametrize("probes", [1, 3, 8])
def test_the_root_of_estimated_squares_is_that_of_the_true_ones(norms, probes) -> None:
    rng = np.random.default_rng(0)
    true = np.array(norms, float)[:, None]
    drawn = rng.standard_normal((probes, len(norms), 100_000))
    found = true * np.sqrt(np.square(drawn).mean(axis=0)) / root_mean_square_bias(probes)
    ratio = root_sum_square(found, probes).mean() / math.sqrt(np.square(true).sum())
    assert ratio == pytest.approx(1, abs=0.02)


def test_exact_norms_have_the_plain_root() -> None:
    norms = np.array([[3.0, 0.0, 0.0], [4.0, 2.0, 0.0]])
    assert root_sum_square(norms).tolist() == [5, 2, 0]
    # One norm alone is itself, and nothing is nothing.
    assert root_sum_square(norms, 1)[1:].tolist() == pytest.approx([2, 0])
