"""Captum, unmodified, on this library's models: its answers are ours, and the contract that its
users expect is kept."""

from __future__ import annotations

import builtins
import json
import re
import tomllib
from dataclasses import dataclass, replace
from itertools import permutations
from math import factorial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum import attr, metrics

from tests.torch.conftest import build_tiny_pipe
from tests.toys import CHANNELS, ToyBackend, toy_trajectory
from wordlight.attribution import (
    DAAM,
    InputXGradient,
    IntegratedGradients,
    Occlusion,
    Shapley,
    TextImageAttributor,
)
from wordlight.attribution.captum_adapter import (
    CaptumForward,
    WordInput,
    captum_forward,
    seeded,
    word_input,
)
from wordlight.attribution.captum_attributor import CaptumAttributor
from wordlight.attribution.captum_method import TensorAttribution
from wordlight.attribution.question import Question
from wordlight.attribution.targets import DecodedChannel, PredictionNorm, Region
from wordlight.attribution.words import PromptWords
from wordlight.backends import Trajectory, load
from wordlight.backends.backend import Backend, Conditioning, Evaluations, MissingCapabilityError
from wordlight.backends.torch.backend import TorchBackend

ROOT = Path(__file__).parents[2]
#: Four words; with the special positions as one player, 5! = 120 orders.
PROMPT = "a red circle."
STEP = 1

pytestmark = pytest.mark.filterwarnings(
    # Captum's metrics hand perturbed inputs on that don't require gradients yet, and its gradient
    # methods say so.
    "ignore:Input Tensor 0 did not already require gradients:UserWarning"
)


class ReversibleToy(ToyBackend):
    """The toy with a reverse-mode product, as a backend of another framework has it, and a prompt
    that the model hears times the timestep over 500 (times 1 at ``STEP``)."""

    capabilities = ToyBackend.capabilities | {"denoise_vjp"}

    def __init__(self, bend: str = "linear") -> None:
        super().__init__(bend=bend)
        self.rows: list[int] = []

    def _denoise(self, latents: Any, timestep: float, conditioning: Any) -> Any:
        self.rows.append(len(latents))
        return super()._denoise(latents, timestep, self._at(timestep, conditioning))

    def _denoise_jvp(self, latents: Any, timestep: float, conditioning: Any, tangents: Any) -> Any:
        # The parent's own forward pass comes back here, and scales once more.
        _, change = super()._denoise_jvp(
            latents, timestep, self._at(timestep, conditioning), timestep / 500 * tangents
        )
        return self._denoise(latents, timestep, conditioning), change

    def _denoise_vjp(self, latents: Any, timestep: float, conditioning: Any, cotangent: Any) -> Any:
        if self._bend == "saturating":
            push = self._push(self._at(timestep, conditioning).embeddings)
            cotangent = cotangent / np.cosh(push) ** 2
        return timestep / 500 * np.einsum("cyxtd,bcyx->btd", self.jacobian, cotangent)

    @staticmethod
    def _at(timestep: float, conditioning: Any) -> Conditioning:
        return Conditioning(timestep / 500 * conditioning.embeddings)


@dataclass
class Case:
    """A model, a run of it, a region, and how near to each other two answers must be."""

    backend: Backend
    trajectory: Trajectory
    region: np.ndarray[Any, Any]
    forward: CaptumForward
    words: WordInput
    tolerance: float

    def ours(self, method: type[TextImageAttributor], **options: Any) -> np.ndarray[Any, Any]:
        """Our method's maps summed over the region, in the precision they were computed in.

        A set of words that comes again isn't predicted again.
        """
        known: dict[bytes, Any] = {}
        predict = self.backend._denoise

        def remembered(latents: Any, timestep: float, conditioning: Any) -> Any:
            rows = conditioning.embeddings
            keys = [row.detach().cpu().numpy().tobytes() for row in rows]
            fresh = [i for i, key in enumerate(keys) if key not in known]
            if fresh:
                made = predict(latents[fresh], timestep, Conditioning(rows[fresh]))
                known.update(zip([keys[i] for i in fresh], made, strict=True))
            return torch.stack([known[key] for key in keys])

        question = Question(
            trajectory=self.trajectory,
            players=self.words.players,
            steps=(STEP,),
            baseline=self.trajectory.empty_embeddings,
        )
        with pytest.MonkeyPatch.context() as patch:
            if method is Shapley:
                patch.setattr(self.backend, "_denoise", remembered)
            maps = method(self.backend, steps=(STEP,), **options)._attribute(question).maps
        return (maps.values.astype(np.float64) * self.region).sum((1, 2))

    def distance(self, scores: torch.Tensor, ours: np.ndarray[Any, Any]) -> float:
        """The largest difference of a word, relative to Σ_region ‖g‖."""
        total = (self.forward.steps[0].total.double().numpy() * self.region).sum()
        return float(np.abs(scores[0].double().numpy() - ours).max() / total)


def make_case(backend: Backend, tolerance: float, size: int | None = None) -> Case:
    trajectory = backend.sample(PROMPT, seed=0, steps=3, height=size, width=size)
    height, width = trajectory.grid
    region = np.zeros((height, width))
    region[height // 4 : height // 2, : width // 2] = 1.0
    forward = captum_forward(backend, trajectory, region=region, steps=[STEP])
    words = word_input(forward, trajectory, group_specials=True)
    return Case(backend, trajectory, region, forward, words, tolerance)


def tiny(dtype: torch.dtype) -> TorchBackend:
    pipe = build_tiny_pipe()
    for part in (pipe.unet, pipe.text_encoder, pipe.vae):
        torch.nn.Module.to(part, dtype)
    return TorchBackend(pipe, model_id="tiny", steps=3, guidance_scale=3.0)


@pytest.fixture(scope="module", params=["tiny-float32", "tiny-float64", "scenes"])
def case(request: pytest.FixtureRequest) -> Case:
    if request.param == "scenes":
        return make_case(load("scenes"), 1e-4)
    if request.param == "tiny-float32":
        return make_case(tiny(torch.float32), 1e-4, size=16)
    return make_case(tiny(torch.float64), 1e-9, size=16)


@pytest.fixture(scope="module")
def small() -> Case:
    return make_case(tiny(torch.float32), 1e-4, size=16)


@pytest.fixture
def toy() -> ReversibleToy:
    return ReversibleToy("saturating")


@pytest.fixture
def toy_forward(toy: ReversibleToy) -> CaptumForward:
    return captum_forward(toy, toy_trajectory(), steps=[STEP])


# --- Captum's answers are ours -----------------------------------------------------------------


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


# --- The contract, rule by rule -----------------------------------------------------------------


def test_rule_1_rows_are_pure_and_differentiable(small: Case) -> None:
    rows = small.forward.inputs.detach() * torch.tensor([1.0, 0.4, -0.3])[:, None, None]
    rows.requires_grad_()
    together = small.forward(rows)
    assert together.shape == (3,)
    alone = torch.cat([small.forward(row[None]) for row in rows])
    # Batches of another size sum in another order: float32 rounding.
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(together[1], rows)
    assert float(gradient[1].norm()) > 0
    assert not gradient[[0, 2]].any()


def test_rule_2_nothing_is_drawn(small: Case) -> None:
    inputs = small.forward.inputs.detach()
    torch.manual_seed(3)
    before, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = small.forward(inputs)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpys).all()  # noqa: NPY002
    torch.manual_seed(4)
    assert torch.equal(small.forward(inputs), first)


def test_rule_3_a_region_for_each_row(toy: ReversibleToy, toy_forward: CaptumForward) -> None:
    mask = np.eye(4, 6)
    region = torch.tensor(mask)[None]
    inside = captum_forward(toy, toy_trajectory(), region=mask, steps=[STEP])
    want = attr.IntegratedGradients(inside).attribute(inside.inputs, n_steps=3)
    method = attr.IntegratedGradients(toy_forward)
    inputs = toy_forward.inputs
    got = method.attribute(inputs, n_steps=3, additional_forward_args=region)
    assert torch.allclose(got, want)
    # Two rows with a region each, which Captum repeats for each node.
    pair = torch.cat([region, 1 - region])
    both = method.attribute(inputs.repeat(2, 1, 1), n_steps=3, additional_forward_args=pair)
    whole = method.attribute(inputs, n_steps=3)
    assert torch.allclose(both[:1], want)
    assert torch.allclose(both.sum(0, keepdim=True), whole)
    with pytest.raises(ValueError, match=r"region must be \(3 or 1, 4, 6\), one a row"):
        method.attribute(inputs, n_steps=3, additional_forward_args=region[0])


def test_rule_4_gradient_modes(small: Case) -> None:
    with torch.inference_mode():
        forward = captum_forward(small.backend, small.trajectory, region=small.region, steps=[STEP])
        words = word_input(forward, small.trajectory)
        ablated = attr.FeatureAblation(words).attribute(words.to_tensor())
    inputs = forward.inputs
    want = attr.IntegratedGradients(small.forward).attribute(inputs, n_steps=2)
    with torch.no_grad():
        got = attr.IntegratedGradients(forward).attribute(inputs, n_steps=2)
    assert torch.allclose(got, want, atol=1e-6)
    usual = attr.FeatureAblation(words).attribute(words.to_tensor())
    assert torch.allclose(ablated.clone(), usual, atol=1e-6)
    # Without a gradient asked for, no graph is kept, though the parameters require theirs.
    assert not forward(inputs.detach()).requires_grad


def test_rule_4_the_model_is_left_as_it_was(small: Case) -> None:
    assert isinstance(small.backend, TorchBackend)
    unet = small.backend.pipe.unet
    parameters = list(unet.parameters())
    parameters[0].requires_grad_(False)
    try:
        inputs = small.forward.inputs
        attr.IntegratedGradients(small.forward).attribute(inputs, n_steps=2)
        attr.FeatureAblation(small.words).attribute(small.words.to_tensor())
        with pytest.raises(AssertionError, match="matching shapes"):
            metrics.infidelity(small.forward, lambda x: (x, x), inputs, inputs[0])
        assert [p.requires_grad for p in parameters] == [False] + [True] * (len(parameters) - 1)
        assert all(p.grad is None for p in parameters)
        assert inputs.grad is None
        assert not any(m._forward_hooks or m._backward_hooks for m in unet.modules())
        assert torch.is_grad_enabled()
    finally:
        parameters[0].requires_grad_(True)


def test_rule_5_one_row_at_a_time(toy: ReversibleToy, toy_forward: CaptumForward) -> None:
    narrow = captum_forward(toy, toy_trajectory(), steps=[STEP], internal_batch_size=1)
    words = word_input(narrow, toy_trajectory())
    inputs = narrow.inputs
    toy.rows.clear()

    def perturb(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        noise = 0.1 * torch.randn(inputs.shape[0], 1, 1).expand_as(inputs)
        return noise, inputs - noise

    def answers(forward: CaptumForward, **small: int) -> list[torch.Tensor]:
        integrated = attr.IntegratedGradients(forward)
        slopes = attr.IntegratedGradients(forward, multiply_by_inputs=False)
        with seeded(0):
            slope = slopes.attribute(inputs, n_steps=3).detach()
            infidelity = metrics.infidelity(
                forward, perturb, inputs, slope, max_examples_per_batch=small.get("metric")
            )
        with seeded(0):
            tunnel = attr.NoiseTunnel(attr.InputXGradient(forward)).attribute(
                inputs, nt_samples=3, stdevs=0.0, nt_samples_batch_size=small.get("tunnel")
            )
        per_eval = {"perturbations_per_eval": small.get("perturb", 3)}
        return [
            integrated.attribute(inputs, n_steps=3, internal_batch_size=small.get("path")),
            attr.FeatureAblation(forward).attribute(
                inputs, feature_mask=words.feature_mask, **per_eval
            ),
            tunnel,
            infidelity,
        ]

    one = answers(narrow, path=1, perturb=1, tunnel=1, metric=1)
    assert set(toy.rows) == {1}
    # A model that only takes one row serves larger batches too.
    cut = answers(narrow)
    assert set(toy.rows) == {1}
    wide = answers(toy_forward)
    assert max(toy.rows) > 1
    for alone, chunked, together in zip(one, cut, wide, strict=True):
        assert torch.allclose(alone, together, rtol=1e-6, atol=1e-9)
        assert torch.allclose(chunked, together, rtol=1e-6, atol=1e-9)


def test_rule_6_words_as_features(toy_forward: CaptumForward) -> None:
    trajectory = toy_trajectory()
    words = word_input(toy_forward, trajectory, ["red circle"], group_specials=True)
    assert words.values == ["a", "red circle", "and", "a", "blue", "circle", "<special>"]
    assert words.n_itp_features == 7
    mask = words.feature_mask
    assert mask.shape == (1, 12, 1)
    assert mask[0, :, 0].tolist() == [6, 0, 1, 1, 2, 3, 4, 5, 6, 6, 6, 6]
    inputs = toy_forward.inputs
    with seeded(0):
        masked = attr.ShapleyValueSampling(toy_forward).attribute(
            inputs, feature_mask=mask, n_samples=3
        )
    with seeded(0):
        features = attr.ShapleyValueSampling(words).attribute(words.to_tensor(), n_samples=3)
    scores = words.format_attr(masked, "group")
    # Captum adds in float32.
    assert torch.allclose(scores, features, atol=1e-5)
    assert float(scores.sum()) == pytest.approx(toy_forward(inputs).item(), rel=1e-5)
    # A word absent is its baseline: the displacement of its tokens is zero, the others' is whole.
    absent = torch.ones(1, 7)
    absent[0, 1] = 0.0
    moved = words.to_model_input(absent)
    assert not moved[0, 2:4].any()
    assert torch.equal(moved[0, 4:], inputs.detach()[0, 4:])
    with pytest.raises(ValueError, match="no feature mask of these words"):
        words.format_attr(torch.rand(1, 12, 5), "group")
    with pytest.raises(ValueError, match=r"\(rows, 7\) or \(rows, 12, 5\), not \(1, 4\)"):
        words.format_attr(torch.rand(1, 4))
    with pytest.raises(ValueError, match=r"features must be \(rows, 7\)"):
        words(torch.ones(1, 4))
    with pytest.raises(KeyError, match="not in the prompt"):
        word_input(toy_forward, trajectory, ["dog"])
    slopes = torch.arange(60.0).reshape(1, 12, 5)
    norm = words.format_attr(slopes, "root-sum-square")[0, 1]
    assert float(norm) == pytest.approx(np.linalg.norm(np.arange(10, 20)))
    assert float(words.format_attr(slopes)[0, 1]) == sum(range(10, 20))


def test_rule_7_dense_answers_have_one_shape(toy: ReversibleToy) -> None:
    """Captum gives (pixels, words), (1, pixels, words) or a refusal; here they are all maps."""
    trajectory = toy_trajectory()
    words = ["a red circle", "and a blue"]
    shapley = CaptumAttributor(toy, "ShapleyValues", steps=(STEP,)).attribute(trajectory, words)
    ours = Shapley(toy, steps=(STEP,), n_samples=factorial(6)).attribute(trajectory, words)
    # Captum adds 720 orders in float32.
    assert np.abs(shapley.data.values - ours.data.values).max() < 1e-4
    for method, options, own in (
        ("FeatureAblation", {}, Occlusion(toy, steps=(STEP,))),
        ("FeatureAblation", {"perturbations_per_eval": 4}, Occlusion(toy, steps=(STEP,))),
        ("Occlusion", {"sliding_window_shapes": (1,)}, Occlusion(toy, steps=(STEP,))),
        ("InputXGradient", {}, InputXGradient(toy, steps=(STEP,))),
        ("IntegratedGradients", {"n_steps": 3}, IntegratedGradients(toy, steps=(STEP,), n_steps=3)),
    ):
        captums = CaptumAttributor(toy, method, arguments=options, steps=(STEP,))
        maps, delta = captums.attribute(trajectory, return_convergence_delta=True)
        wanted, its = own.attribute(trajectory, return_convergence_delta=True)
        assert maps.data.dims == wanted.data.dims
        assert np.abs(maps.data.values - wanted.data.values).max() < 1e-5
        assert np.abs(delta.values - its.values).max() < 1e-5
        assert (maps.signed, maps.merge) == (True, "sum")


def test_rule_8_half_precision_answers_in_float32() -> None:
    case = make_case(tiny(torch.bfloat16), 0.05, size=16)
    inputs = case.forward.inputs
    assert inputs.dtype == torch.float32
    for answer in (
        case.forward(inputs),
        attr.Saliency(case.forward).attribute(inputs),
        attr.IntegratedGradients(case.forward).attribute(inputs, n_steps=2),
        attr.FeatureAblation(case.words).attribute(case.words.to_tensor()),
    ):
        assert answer.dtype == torch.float32
        assert torch.isfinite(answer).all()
    # bfloat16 holds 8 bits, and the two sides round in other places.
    scores = case.words.format_attr(attr.InputXGradient(case.forward).attribute(inputs))
    assert case.distance(scores, case.ours(InputXGradient)) < case.tolerance
    assert np.isfinite(case.forward(inputs).item())


def test_rule_9_our_methods_under_a_noise_tunnel(toy: ReversibleToy) -> None:
    trajectory = toy_trajectory()
    method = TensorAttribution(IntegratedGradients(toy, steps=(STEP,), n_steps=3), trajectory)
    assert method.has_convergence_delta()
    assert method.multiplies_by_inputs
    inputs = method.forward_func.inputs
    maps = method.attribute(inputs)
    assert maps.shape == (1, 10, 4, 6)
    own = IntegratedGradients(toy, steps=(STEP,), n_steps=3).attribute(trajectory)
    assert np.abs(maps[0].numpy() - own.data.values).max() < 1e-5
    # Over the region, Captum's own, at other inputs too: the target's direction stays.
    other = 0.7 * inputs.detach() + 0.1
    summed, delta = method.attribute(torch.cat([inputs, other]), return_convergence_delta=True)
    captums, its = attr.IntegratedGradients(method.forward_func).attribute(
        torch.cat([inputs, other]).detach(), n_steps=3, return_convergence_delta=True
    )
    words = word_input(method.forward_func, trajectory)
    # Captum's weights are float32.
    assert torch.allclose(summed.sum((2, 3)), words.format_attr(captums), atol=1e-5)
    assert torch.allclose(delta, its.detach(), atol=1e-5)
    with seeded(0):
        smooth, deltas = attr.NoiseTunnel(method).attribute(
            inputs, nt_samples=4, stdevs=0.1, return_convergence_delta=True
        )
    assert smooth.shape == (1, 10, 4, 6)
    assert deltas.shape == (4,)
    with seeded(0):
        still = attr.NoiseTunnel(method).attribute(inputs, nt_samples=4, stdevs=0.0)
    assert torch.allclose(still, maps)
    assert not torch.allclose(smooth, maps)
    with pytest.raises(TypeError, match="step by step"):
        TensorAttribution(DAAM(toy), trajectory)  # type: ignore[arg-type]


def test_rule_10_our_methods_under_sensitivity_max(toy: ReversibleToy) -> None:
    method = TensorAttribution(Occlusion(toy, steps=(STEP,)), toy_trajectory())
    inputs = method.forward_func.inputs.detach()
    tensor, (single,) = method.attribute(inputs), method.attribute((inputs,))
    assert isinstance(tensor, torch.Tensor)
    assert torch.equal(tensor, single)
    assert tensor.is_contiguous()
    with pytest.raises(ValueError, match="one input"):
        method.attribute((inputs, inputs))
    found = []
    for radius in (0.02, 0.02, 0.2):
        with seeded(0):
            found.append(metrics.sensitivity_max(method.attribute, inputs, perturb_radius=radius))
    assert torch.equal(found[0], found[1])
    assert 0 < float(found[0]) < float(found[2])


def test_rule_11_infidelity_takes_what_has_the_inputs_shape() -> None:
    """A linear model: attributions explain every change, and infidelity is nothing but rounding."""
    toy, trajectory = ReversibleToy(), toy_trajectory()
    forward = captum_forward(toy, trajectory, steps=[STEP])
    words = word_input(forward, trajectory, ["a red circle and", "a blue circle"])
    inputs, present = forward.inputs, words.to_tensor()

    @metrics.infidelity_perturb_func_decorator(multiply_by_inputs=True)
    def some_words(inputs: torch.Tensor) -> torch.Tensor:
        return inputs * (torch.rand_like(inputs) < 0.5)

    def jitter(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        noise = torch.randn_like(inputs)
        return noise, inputs - noise

    slopes = attr.IntegratedGradients(forward, multiply_by_inputs=False).attribute(inputs)
    shapley = attr.ShapleyValues(words).attribute(present)
    size = forward(inputs).item() ** 2
    with seeded(0):
        exact = metrics.infidelity(forward, jitter, inputs, slopes.detach())
        wrong = metrics.infidelity(forward, jitter, inputs, 1.1 * slopes.detach())
        by_word = metrics.infidelity(words, some_words, present, shapley)
        shuffled = metrics.infidelity(words, some_words, present, shapley.flip(1))
    # Squares of float32 rounding, relative to f².
    assert float(exact) < 1e-10 * size < float(wrong)
    assert float(by_word) < 1e-10 * size < float(shuffled)
    maps = TensorAttribution(Occlusion(toy, steps=(STEP,)), trajectory).attribute(inputs)
    with pytest.raises(AssertionError, match="matching shapes"):
        metrics.infidelity(forward, jitter, inputs, maps)
    with pytest.raises(AssertionError, match="stdevs must be type float"):
        attr.NoiseTunnel(attr.Saliency(forward)).attribute(inputs, stdevs=1)


def test_rule_12_a_model_that_is_not_torchs() -> None:
    toy, trajectory = ReversibleToy(), toy_trajectory()
    forward = captum_forward(toy, trajectory, steps=[STEP])
    inputs = forward.inputs
    assert inputs.dtype == torch.float64
    answer, delta = attr.IntegratedGradients(forward).attribute(
        inputs, n_steps=2, return_convergence_delta=True
    )
    # On paper: f = Σ ⟨J Δ, u⟩ with u the direction of J Δ, so ∂f/∂Δ = Jᵀu.
    push = np.einsum("cyxtd,td->cyx", toy.jacobian, inputs[0].detach().numpy())
    unit = push / np.linalg.norm(push, axis=0)
    gradient = np.einsum("cyxtd,cyx->td", toy.jacobian, unit)
    assert np.allclose(answer[0].detach().numpy(), gradient * inputs[0].detach().numpy())
    assert abs(delta.item()) < 1e-9
    assert toy.evaluations.vjp == 2
    # Two for the step, two on the path, two for the delta.
    assert toy.evaluations.forward == 6
    # A saturating model against differences.
    bent = captum_forward(ReversibleToy("saturating"), trajectory, steps=[STEP])
    assert torch.autograd.gradcheck(lambda x: bent(x[None]), inputs[0].detach().requires_grad_())
    forward_only = captum_forward(ToyBackend(), trajectory, steps=[STEP])
    words = word_input(forward_only, trajectory)
    with seeded(0):
        attr.ShapleyValueSampling(words).attribute(words.to_tensor(), n_samples=1)
    with pytest.raises(MissingCapabilityError, match="gradient for Captum needs denoise_vjp"):
        attr.Saliency(forward_only).attribute(forward_only.inputs)
    with pytest.raises(MissingCapabilityError, match="decode"):
        captum_forward(toy, trajectory, target=DecodedChannel("red"))


def test_rule_13_captum_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["captum"] == ["captum>=0.9"]
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "captum":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'wordlight\[captum\]'"):
        captum_forward(ToyBackend(), toy_trajectory())
    with pytest.raises(ImportError, match=r"pip install 'wordlight\[captum\]'"):
        CaptumAttributor(ToyBackend(), "FeatureAblation")


def test_rule_13_a_seed_with_the_global_numbers_forked(small: Case) -> None:
    def draws(seed: int) -> list[torch.Tensor]:
        inputs = small.forward.inputs.detach().requires_grad_()
        with seeded(seed):
            tunnel = attr.NoiseTunnel(attr.Saliency(small.forward))
            sensitive = metrics.sensitivity_max(
                attr.InputXGradient(small.forward).attribute, inputs, n_perturb_samples=3
            )
            return [
                tunnel.attribute(inputs, nt_samples=2, stdevs=0.1),
                metrics.infidelity(
                    small.forward, lambda x: (torch.randn_like(x), x), inputs, inputs.detach()
                ),
                sensitive,
                attr.KernelShap(small.words).attribute(small.words.to_tensor(), n_samples=20),
            ]

    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = draws(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    for one, again, other in zip(first, draws(0), draws(1), strict=True):
        assert torch.isfinite(one).all()
        assert torch.equal(one, again)
        assert not torch.equal(one, other)


# --- Captum's methods as attributors --------------------------------------------------------------


def test_cells_on_torch_and_their_cost(small: Case) -> None:
    question = {"words": ["a red"], "return_convergence_delta": True}
    grid = small.trajectory.grid
    for method, own, arguments, vjp in (
        ("IntegratedGradients", IntegratedGradients, {"n_steps": 2}, 2),
        ("InputXGradient", InputXGradient, {}, 1),
    ):
        captums = CaptumAttributor(
            small.backend, method, arguments=arguments, cells=(2, 4), steps=(STEP,)
        )
        maps, delta = captums.attribute(small.trajectory, **question)
        wanted, its = own(small.backend, steps=(STEP,), **arguments).attribute(
            small.trajectory, **question
        )

        def coarse(values: Any) -> Any:
            split = values.reshape(-1, 2, grid[0] // 2, 4, grid[1] // 4)
            return split.mean((2, 4))

        # float32 through the network, forwards here and backwards there.
        scale = np.abs(its.target).mean()
        assert maps.data.shape == (len(wanted), 2, 4)
        assert np.abs(maps.data.values - coarse(wanted.data.values)).max() < 1e-4 * scale
        assert np.abs(delta.values - coarse(its.values)).max() < 1e-4 * scale
        # Two passes for the step, and each differentiated row a product: 8 cells.
        spent = maps.provenance
        assert (spent.forward, spent.jvp, spent.vjp) == (2, 0, 8 * vjp)
        assert spent.forward_equivalents == 2 + 3 * 8 * vjp
        assert maps["a red"].resized().shape == small.trajectory.image.shape[:2]


def test_the_backends_own_count_holds(toy: ReversibleToy, toy_forward: CaptumForward) -> None:
    before = replace(toy.evaluations)
    ablation = CaptumAttributor(toy, attr.FeatureAblation, steps=(STEP,))
    maps = ablation.attribute(toy_trajectory())
    # Two for the step, one with all words, and ten with one word less: all pixels at once.
    assert (maps.provenance.forward, maps.provenance.vjp) == (13, 0)
    assert toy.evaluations - before == Evaluations(forward=13)
    shapley = CaptumAttributor(toy, attr.ShapleyValues, steps=(STEP,)).attribute(
        toy_trajectory(), ["a red circle and a blue", "circle"][:1]
    )
    # Five players have 120 orders but 32 sets.
    assert len(shapley) == 5
    assert shapley.provenance.forward == 2 + 32
    saliency = CaptumAttributor(toy, attr.Saliency, steps=(STEP,)).attribute(toy_trajectory())
    # A bridged model goes forward, and forward and back, for each of 24 pixels.
    assert (saliency.provenance.forward, saliency.provenance.vjp) == (2 + 24, 24)


def test_slopes() -> None:
    """Saliency on a linear model: ‖Jᵀu‖ over a word's embedding, at every pixel."""
    toy, trajectory = ReversibleToy(), toy_trajectory()
    method = CaptumAttributor(toy, "Saliency", steps=(STEP,))
    assert not method.multiplies_by_inputs
    assert not method.has_convergence_delta()
    maps = method.attribute(trajectory)
    assert (maps.signed, maps.merge) == (False, "root-sum-square")
    push = np.einsum(
        "cyxtd,td->cyx", toy.jacobian, trajectory.embeddings - trajectory.empty_embeddings
    )
    assert push.shape[0] == CHANNELS
    slopes = np.einsum("cyxtd,cyx->yxtd", toy.jacobian, push / np.linalg.norm(push, axis=0))
    blue = PromptWords.of(trajectory.tokens).find("blue")
    want = np.linalg.norm(slopes[:, :, list(blue.tokens)], axis=(2, 3))
    assert np.allclose(maps.at(blue).values, want, rtol=1e-5)
    red_circle = np.linalg.norm(slopes[:, :, [2, 3]], axis=(2, 3))
    assert np.allclose(maps[2:12].values, red_circle, rtol=1e-5)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("KernelShap", {"arguments": {"n_samples": 60}}),
        ("GradientShap", {"arguments": {"n_samples": 2, "stdevs": 0.0}}),
        ("ShapleyValueSampling", {"arguments": {"n_samples": 1}}),
        ("NoiseTunnel", {"of": "InputXGradient", "arguments": {"nt_samples": 1, "stdevs": 0.0}}),
    ],
)
def test_all_agree_on_a_linear_model(method: str, options: dict[str, Any]) -> None:
    toy, trajectory = ReversibleToy(), toy_trajectory()
    maps = CaptumAttributor(toy, method, steps=(STEP,), **options).attribute(trajectory)
    want = InputXGradient(toy, steps=(STEP,)).attribute(trajectory)
    # KernelShap's regression is in float32, with weights of 10⁶ for none and all.
    tolerance = 5e-2 if method == "KernelShap" else 1e-4
    assert np.abs(maps.data.values - want.data.values).max() < tolerance


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("ShapleyValueSampling", {"arguments": {"n_samples": 2}}),
        ("GradientShap", {"arguments": {"n_samples": 2, "stdevs": 0.1}}),
        ("Lime", {"arguments": {"n_samples": 30}}),
        ("NoiseTunnel", {"of": attr.InputXGradient, "arguments": {"nt_samples": 2}}),
    ],
)
def test_seeds(toy: ReversibleToy, method: str, options: dict[str, Any]) -> None:
    torch.manual_seed(2)
    before = torch.get_rng_state()
    captums = CaptumAttributor(toy, method, steps=(STEP,), cells=2, **options)
    first, again = (captums.attribute(toy_trajectory()).data.values for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert (first == again).all()
    assert np.abs(first).max() > 0
    other = captums.attribute(toy_trajectory(), seed=1).data.values
    assert not (first == other).all()


def test_noise_tunnels_that_square(toy: ReversibleToy) -> None:
    tunnel = CaptumAttributor(
        toy,
        attr.NoiseTunnel,
        of=attr.InputXGradient,
        arguments={"nt_type": "vargrad", "nt_samples": 3, "stdevs": 0.2},
        cells=2,
        steps=(STEP,),
    )
    assert not tunnel.has_convergence_delta()
    maps = tunnel.attribute(toy_trajectory())
    assert not maps.signed


class Doubled(attr.InputXGradient):  # type: ignore[misc]
    """Somebody else's method."""

    def attribute(self, *args: Any, **options: Any) -> Any:
        return 2 * super().attribute(*args, **options)


def test_settings_name_the_method_again(toy: ReversibleToy) -> None:
    trajectory = toy_trajectory()
    own = CaptumAttributor(toy, Doubled, cells=(4, 3), steps=(STEP,))
    settings = json.loads(json.dumps(own.settings()))
    assert settings["captum_method"] == f"{__name__}:Doubled"
    same = CaptumAttributor(toy, **{**own.settings(), "captum_method": "InputXGradient"})
    twice, once = own.attribute(trajectory), same.attribute(trajectory)
    assert np.allclose(twice.data.values, 2 * once.data.values)
    assert twice.provenance.settings["cells"] == (4, 3)
    assert once.provenance.settings["captum_method"] == "InputXGradient"
    assert (twice.provenance.method, twice.provenance.framework) == ("captum", "numpy")


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        (attr.LayerIntegratedGradients, ValueError, "LayerIntegratedGradients explains a layer"),
        ("LayerGradCam", ValueError, "LayerGradCam explains a layer"),
        ("InternalInfluence", ValueError, "InternalInfluence explains a layer"),
        ("NeuronGradient", ValueError, "NeuronGradient explains a layer or a neuron"),
        ("DeepLift", ValueError, "DeepLift is constructed on a model"),
        ("LRP", ValueError, "LRP is constructed on a model"),
        ("GuidedBackprop", ValueError, "GuidedBackprop is constructed on a model"),
        ("GuidedGradCam", ValueError, "GuidedGradCam is constructed on a model"),
        ("LLMAttribution", ValueError, "LLMAttribution is constructed on a attr_method"),
        ("FeaturePermutation", ValueError, "every score would be zero"),
        ("LimeBase", ValueError, "can't be constructed without interpretable_model"),
        ("IntegratedGradient", ValueError, "no Captum method 'IntegratedGradient'"),
        ("nowhere:Method", ValueError, "no Captum method"),
        ("visualization", TypeError, "a class of Captum's attributions"),
        (IntegratedGradients, TypeError, "a class of Captum's attributions"),
    ],
)
def test_what_has_no_answer_for_each_pixel_is_refused(
    method: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        CaptumAttributor(ReversibleToy(), method)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"captum_method": "NoiseTunnel"}, "only it, takes another method"),
        ({"captum_method": "Saliency", "of": "Saliency"}, "only it, takes another method"),
        ({"captum_method": "NoiseTunnel", "of": "FeatureAblation"}, "takes a gradient method"),
        ({"captum_method": "Saliency", "arguments": {"target": 3}}, "target: decided by"),
        ({"captum_method": "Saliency", "cells": 0}, "cells must be 1 or more"),
        ({"captum_method": "Saliency", "cells": 3}, r"cells \(3, 3\) don't divide .* \(4, 6\)"),
        ({"captum_method": "Saliency", "seed": -1}, "seed must be 0 or more"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CaptumAttributor(ReversibleToy(), **options).attribute(toy_trajectory())


def test_gradients_of_a_model_without_any() -> None:
    with pytest.raises(MissingCapabilityError, match="Saliency needs denoise_vjp"):
        CaptumAttributor(ToyBackend(), "Saliency")
    CaptumAttributor(ToyBackend(), "FeatureAblation")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region": np.zeros((4, 6))}, "at least one pixel above 0"),
        ({"region": np.ones((5, 6))}, "a multiple of it"),
        ({"steps": [7]}, "step 7 is outside"),
        ({"baselines": "blank"}, "baselines must be"),
        ({"step_weighting": "none"}, "step_weighting must be"),
        ({"wrt": "pixels"}, "wrt must be"),
        ({"internal_batch_size": 0}, "1 or more"),
    ],
)
def test_bad_questions(toy: ReversibleToy, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        captum_forward(toy, toy_trajectory(), **options)


def test_inputs_of_another_shape(toy_forward: CaptumForward) -> None:
    with pytest.raises(ValueError, match=r"inputs must be \(rows, 12, 5\), not \(12, 5\)"):
        toy_forward(toy_forward.inputs[0])


def test_a_region_at_the_images_size(toy: ReversibleToy) -> None:
    trajectory = toy_trajectory()
    image = np.zeros(trajectory.image.shape[:2], bool)
    image[:4, :2] = True
    forward = captum_forward(toy, trajectory, region=image, steps=[STEP])
    # Half of one latent pixel.
    assert float(forward.region.sum()) == 0.5
    assert forward(forward.inputs).item() == pytest.approx(
        0.5 * float(forward.steps[0].total[0, 0])
    )


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
