"""What Captum's users expect of a forward function, rule by rule."""

from __future__ import annotations

import builtins
import tomllib
from math import factorial
from typing import Any

import numpy as np
import pytest
import torch
from captum import attr, metrics

from tests.backends.torch.captum_cases import (
    QUIET,
    ROOT,
    STEP,
    Case,
    ReversibleToy,
    make_case,
    tiny,
)
from tests.toys import ToyBackend, toy_trajectory
from wordlight.attribution import (
    DAAM,
    InputXGradient,
    IntegratedGradients,
    Occlusion,
    Shapley,
)
from wordlight.attribution.captum.from_captum import CaptumAttributor
from wordlight.attribution.captum.region import (
    CaptumForward,
    captum_forward,
    seeded,
    word_input,
)
from wordlight.attribution.captum.to_captum import TensorAttribution
from wordlight.attribution.targets import DecodedChannel
from wordlight.backends.backend import MissingCapabilityError
from wordlight.backends.torch.backend import TorchBackend

pytestmark = QUIET


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
    toy.rows.clear()
    narrow = captum_forward(toy, toy_trajectory(), steps=[STEP], internal_batch_size=1)
    words = word_input(narrow, toy_trajectory())
    inputs = narrow.inputs

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
