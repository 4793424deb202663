"""Captum's methods as attributors."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from captum import attr

from tests.backends.torch.captum_cases import QUIET, STEP, Case, ReversibleToy
from tests.toys import CHANNELS, ToyBackend, toy_trajectory
from wordlight.attribution import (
    InputXGradient,
    IntegratedGradients,
)
from wordlight.attribution.captum.from_captum import CaptumAttributor
from wordlight.attribution.captum.region import (
    CaptumForward,
)
from wordlight.attribution.words import PromptWords
from wordlight.backends.backend import Evaluations, MissingCapabilityError

pytestmark = QUIET


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
