"""Options that can't be are named where they are given, with what would be right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wordlight.attribution import (
    DAAM,
    Center,
    GradientShap,
    Guidance,
    HeadSelection,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    NoiseDifference,
    NoiseTunnel,
    Occlusion,
    OpenVocabulary,
    Random,
    Saliency,
    SelfAttentionRefined,
    Shapley,
    TextImageAttributor,
)
from wordlight.attribution.testing.model import ToyModel
from wordlight.backends.trajectory import Trajectory


@pytest.fixture(scope="module")
def model() -> ToyModel:
    return ToyModel()


@pytest.fixture(scope="module")
def trajectory(model: ToyModel) -> Trajectory:
    return model.sample("a red circle", steps=3)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (IntegratedGradients, {"n_steps": 2.5}, "n_steps of gausslegendre must be a whole number"),
        (IntegratedGradients, {"n_steps": "8"}, "must be a whole number, not '8'"),
        (Saliency, {"probes": None}, "probes must be a whole number, not None"),
        (Saliency, {"seed": 1.5}, "seed must be a whole number, not 1.5"),
        (Shapley, {"n_samples": True}, "n_samples must be a whole number, not True"),
        (KernelShap, {"n_samples": 30.0}, "n_samples must be a whole number, not 30.0"),
        (GradientShap, {"stdevs": "0.1"}, "stdevs must be a number, not '0.1'"),
        (Random, {"seed": "0"}, "seed must be a whole number"),
        (Center, {"width": "wide"}, "width must be a number, not 'wide'"),
        (HeadSelection, {"share": "all"}, "share must be a number, not 'all'"),
        (HeadSelection, {"heads": "fine"}, r"heads must be a list, such as \[\("),
        (HeadSelection, {"heads": [("fine",)]}, r"pairs of layer and number, .*: \('fine',\)"),
        (HeadSelection, {"heads": [("fine", 0.5)]}, "a head's number must be a whole number"),
        (SelfAttentionRefined, {"power": 1.5}, "power must be a whole number, not 1.5"),
        (SelfAttentionRefined, {"factors": 2}, r"factors must be a list, such as \[1, 2\], not 2"),
        (DAAM, {"layers": "fine"}, r"layers must be a list, such as \['up_blocks'\], not 'fine'"),
        (DAAM, {"heads": 3}, r"heads must be a list, such as \[0, 1\], not 3"),
        (DAAM, {"keep": "layer"}, r"keep must be a list, such as \['layer'\], not 'layer'"),
        (Occlusion, {"steps": "all"}, "how many, a list of which, or None for all, not 'all'"),
        (Occlusion, {"steps": 2.5}, "how many, a list of which, or None for all, not 2.5"),
        (Occlusion, {"steps": [1.5]}, "a step's number must be a whole number, not 1.5"),
    ],
)
def test_options_of_a_wrong_kind(
    model: ToyModel, method: type[TextImageAttributor], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        method(model, **options)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (IntegratedGradients, {"n_steps": 0}, "n_steps of gausslegendre must be 1 or more, not 0"),
        (Saliency, {"probes": 0}, "probes must be 1 or more, not 0"),
        (Shapley, {"seed": -1}, "seed must be 0 or more, not -1"),
        (GradientShap, {"stdevs": -1}, "stdevs must be 0 or more, not -1"),
        (GradientShap, {"stdevs": float("nan")}, "stdevs must be 0 or more, not nan"),
        (Center, {"width": 0}, "width must be above 0"),
        (DAAM, {"clamp": "none"}, "clamp must be 'mean' or 'per-map', not 'none'"),
        (Occlusion, {"steps": 0}, "steps must be 1 or more, not 0"),
        (Occlusion, {"wrt": "words"}, "wrt must be 'embeddings' or 'tokens', not 'words'"),
        (OpenVocabulary, {"context": 3}, "with '{word}' once and perhaps '{prompt}' in it, not 3"),
        (OpenVocabulary, {"context": "{word} {place}"}, "not '{word} {place}'"),
    ],
)
def test_options_out_of_range(
    model: ToyModel, method: type[TextImageAttributor], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        method(model, **options)


def test_numpys_numbers_are_numbers(model: ToyModel) -> None:
    """They come out of ranges and files, and go into settings as plain ones."""
    method = Shapley(model, n_samples=np.int64(3), steps=np.arange(2))
    assert method.settings()["n_samples"] == 3
    assert type(method.settings()["n_samples"]) is int
    assert method.settings()["steps"] == (0, 1)
    assert Occlusion(model, steps=np.int64(2)).steps == 2
    assert type(GradientShap(model, stdevs=np.float32(0.5)).stdevs) is float


def test_what_a_method_is_constructed_on(model: ToyModel) -> None:
    for wrong in ("scenes", ToyModel, None):
        with pytest.raises(TypeError, match=r"occlusion is constructed on a backend, such as load"):
            Occlusion(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes an attributor that looks at the target step by"):
        NoiseTunnel(InputXGradient)  # type: ignore[arg-type]


def test_what_a_call_may_ask_for(model: ToyModel, trajectory: Trajectory) -> None:
    method = Occlusion(model)
    for target in ("guidance", Guidance):
        with pytest.raises(TypeError, match=r"a target is an object such as Guidance\(\), not"):
            method.attribute(trajectory, target=target)  # type: ignore[call-overload]
    for budget in (1.5, "40"):
        with pytest.raises(TypeError, match="a budget must be a whole number"):
            method.attribute(trajectory, budget=budget)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="internal_batch_size must be a whole number"):
        method.attribute(trajectory, internal_batch_size=2.5)  # type: ignore[call-overload]
    # What has no baseline doesn't pretend to have used one.
    for kind in (DAAM, NoiseDifference, Random):
        with pytest.raises(ValueError, match=f"{kind.name} compares with no baseline"):
            kind(model).attribute(trajectory, baselines="negative")


def test_a_method_shows_its_options(model: ToyModel, trajectory: Trajectory) -> None:
    method = IntegratedGradients(model, steps=2, n_steps=4)
    assert repr(method) == (
        "IntegratedGradients(steps=2, step_weighting='epsilon', wrt='embeddings', n_steps=4, "
        "method='gausslegendre')"
    )
    _, delta = method.attribute(trajectory, return_convergence_delta=True)
    assert repr(delta).startswith("ConvergenceDelta(relative=[")
    assert len(repr(delta)) < 100
