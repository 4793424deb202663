"""What a method costs is known beforehand, and a budget buys as much effort as it pays for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.toys import ToyBackend, toy_trajectory
from wordlight.attribution import (
    DAAM,
    GradientShap,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    Occlusion,
    Saliency,
    Shapley,
    TextImageAttributor,
    Uniform,
)
from wordlight.attribution.attributor import BudgetError
from wordlight.attribution.question import Answer, Question, Size
from wordlight.backends.backend import Evaluations

#: Ten players (seven words, start, end, padding), three steps.
TRAJECTORY = toy_trajectory()
SIZE = Size(players=10, words=7, steps=3, drawing=3)


def test_size() -> None:
    method = Occlusion(ToyBackend())
    assert method.size_of(TRAJECTORY) == SIZE
    phrase = Occlusion(ToyBackend(), steps=2).size_of(TRAJECTORY, ["red circle"])
    assert phrase == Size(players=9, words=6, steps=2, drawing=3)


@pytest.mark.parametrize(
    ("method", "options", "evaluations"),
    [
        (InputXGradient, {}, Evaluations(forward=6, jvp=30)),
        (IntegratedGradients, {"n_steps": 4}, Evaluations(forward=6, jvp=120)),
        (GradientShap, {"n_samples": 2}, Evaluations(forward=6, jvp=60)),
        (Saliency, {"probes": 5}, Evaluations(forward=6, jvp=150)),
        (Occlusion, {}, Evaluations(forward=36)),
        # Nine sets between none and all of ten players, for each order.
        (Shapley, {"n_samples": 2}, Evaluations(forward=60)),
        (KernelShap, {"n_samples": 20}, Evaluations(forward=66)),
        (Uniform, {}, Evaluations()),
    ],
)
def test_cost_on_paper(
    method: type[TextImageAttributor], options: dict[str, Any], evaluations: Evaluations
) -> None:
    """Two forward passes a step, and what the method's page says."""
    assert method(ToyBackend(), **options).cost(SIZE) == evaluations


@pytest.mark.parametrize(
    ("method", "budget", "effort"),
    [
        # 6 forward passes, and 30 products of weight 2 for each node.
        (IntegratedGradients, 66, 1),
        (IntegratedGradients, 125, 1),
        (IntegratedGradients, 126, 2),
        (IntegratedGradients, 6 + 60 * 37, 37),
        (GradientShap, 200, 3),
        (Saliency, 200, 3),
        # 27 passes for each order.
        (Shapley, 200, 7),
        (KernelShap, 66, 20),
        (KernelShap, 200, 64),
    ],
)
def test_the_most_effort_that_fits(
    method: type[TextImageAttributor], budget: int, effort: int
) -> None:
    backend = ToyBackend()
    fitted = method(backend).within_budget(budget, SIZE)
    assert method.effort is not None
    assert fitted.settings()[method.effort] == effort
    maps = method(backend).attribute(TRAJECTORY, budget=budget)
    assert maps.provenance.settings[method.effort] == effort
    assert maps.provenance.forward_equivalents == fitted.cost(SIZE).forward_equivalents <= budget


def test_a_budget_beyond_use() -> None:
    """Three players come in six orders: from there on the cost doesn't grow."""
    size = Size(players=3, words=0, steps=1, drawing=1)
    fitted = Shapley(ToyBackend()).within_budget(10_000, size)
    assert fitted.n_samples >= 6
    assert fitted.cost(size) == Evaluations(forward=2 + 6 * 2)


def test_one_effort_for_images_of_several_sizes() -> None:
    longest = Size(players=12, words=9, steps=3, drawing=3)
    fitted = Shapley(ToyBackend()).within_budget(200, SIZE, longest)
    # Eleven sets for each order of twelve: (200 / 3 - 2) // 11.
    assert fitted.n_samples == 5


@pytest.mark.parametrize(
    ("method", "least"),
    [
        (IntegratedGradients, "at least 66 forward-equivalents an image with n_steps=1"),
        (Shapley, "at least 33 forward-equivalents an image with n_samples=1"),
        (KernelShap, "at least 66 forward-equivalents an image with n_samples=20"),
        (Occlusion, "at least 36 forward-equivalents an image, and the budget is 32"),
    ],
)
def test_too_small_a_budget_names_the_least(method: type[TextImageAttributor], least: str) -> None:
    backend = ToyBackend()
    with pytest.raises(BudgetError, match=least):
        method(backend).attribute(TRAJECTORY, budget=32)
    assert backend.evaluations == Evaluations()


def test_the_rule_of_integration_has_a_say() -> None:
    method = IntegratedGradients(ToyBackend(), method="riemann_trapezoid")
    with pytest.raises(BudgetError, match=r"at least 126 .* with n_steps=2") as error:
        method.within_budget(125, SIZE)
    assert error.value.least == 126
    assert method.within_budget(126, SIZE).n_steps == 2


def test_fixed_costs_just_run() -> None:
    backend = ToyBackend()
    method = Occlusion(backend)
    assert method.within_budget(36, SIZE) is method
    maps = method.attribute([TRAJECTORY, TRAJECTORY], budget=36)
    assert [m.provenance.forward_equivalents for m in maps] == [36, 36]
    assert DAAM(backend).cost(SIZE) == Evaluations(forward=3)


def test_a_list_is_fitted_image_by_image() -> None:
    long = toy_trajectory("a red circle and a blue circle below it")
    maps = Shapley(ToyBackend()).attribute([TRAJECTORY, long], budget=200)
    assert [m.provenance.settings["n_samples"] for m in maps] == [7, 5]


def test_bad_budgets() -> None:
    method = Saliency(ToyBackend())
    with pytest.raises(ValueError, match="1 or more, not 0"):
        method.attribute(TRAJECTORY, budget=0)
    with pytest.raises(ValueError, match="size of at least one image"):
        method.within_budget(100)
    with pytest.raises(TypeError, match="probes is what the budget decides"):
        method.attribute(TRAJECTORY, budget=200, probes=4)
    assert method.attribute(TRAJECTORY, budget=200, seed=1).provenance.settings["seed"] == 1


def test_a_method_that_does_not_say() -> None:
    class Silent(TextImageAttributor):
        name = "silent"
        family = "control"

        def _attribute(self, question: Question) -> Answer:
            raise AssertionError("not to be asked")

    with pytest.raises(NotImplementedError, match="silent doesn't say what it costs"):
        Silent(ToyBackend()).cost(SIZE)


def test_the_least_number_of_sets_is_always_enough() -> None:
    """Half of the draws of so few sets leave the answer open; they are drawn anew."""
    for seed in range(20):
        maps = KernelShap(ToyBackend(), seed=seed).attribute(TRAJECTORY, budget=66)
        assert maps.provenance.settings["n_samples"] == 20
