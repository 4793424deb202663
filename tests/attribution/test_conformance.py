"""Every registered method keeps to the rules, and the rules are such that breaking one is found."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from tests.attribution import broken
from wordlight.attribution import (
    DAAM,
    AttentionXGradient,
    NoiseTunnel,
    Occlusion,
    ShuffledWord,
    TextImageAttributor,
)
from wordlight.attribution.registry import available
from wordlight.attribution.stepwise import StepwiseAttributor
from wordlight.attribution.testing import Check, attributor_checks, check_attributor
from wordlight.attribution.testing.audit import footprint
from wordlight.attribution.testing.model import ToyModel
from wordlight.backends.backend import Backend, MissingCapabilityError

#: shuffled-word exists in comparisons only.
METHODS = {name: kind for name, kind in available().items() if kind is not ShuffledWord}

STEPWISE = {name: kind for name, kind in METHODS.items() if issubclass(kind, StepwiseAttributor)}

#: Which check finds each broken method first, and what it says.
BROKEN: dict[type[TextImageAttributor], tuple[str, str]] = {
    broken.WrongShape: (
        "gives-a-map-a-player",
        r"its maps are 6 x 4, and should be on the latent grid, height x width, which is 4 x 6",
    ),
    broken.WrongNumber: ("gives-a-map-a-player", r"gives 7 maps for 10 players .* one a player"),
    broken.NotFinite: ("gives-finite-values", r"240 of 240 values .* are NaN or infinite"),
    broken.NotDeterministic: ("answers-the-same-again", "it must be deterministic, so randomness"),
    broken.ChangesTheTrajectory: (
        "leaves-the-trajectory-alone",
        "it changed the trajectory's latents: .* work on a copy",
    ),
    broken.LeaksHooks: (
        "leaves-no-hooks",
        r"leaves something behind on the model \(backend.hooks\): take hooks away in a finally",
    ),
    broken.LeaksHooksOnError: (
        "leaves-no-hooks",
        r"behind on the model when the model raises an error \(backend.hooks\)",
    ),
    broken.ReplacesAPrimitive: ("leaves-no-hooks", r"behind on the model \(backend.to_numpy\)"),
    broken.SwallowsErrors: ("leaves-no-hooks", "let errors of the backend through"),
    broken.IgnoresWords: (
        "answers-about-the-words-asked-for",
        r"words=\['red circle'\], it answers about 'a', 'red', .* should about 'a', 'red circle',",
    ),
    broken.SumsTokens: (
        "merges-as-it-says",
        "'red circle' has another map than the mean of its words' maps, .* merge tokens by mean",
    ),
    broken.SumsTokensUnsaid: (
        "merges-as-it-says",
        "phrases have exactly the sum of their words' maps, though it says merge='mean': say",
    ),
    broken.SumsPhrases: ("merges-as-it-says", "is not the sum of its words' maps"),
    broken.ForgetsItsCost: (
        "counts-its-cost",
        r"say that they cost Evaluations\(forward=0, .* model did Evaluations\(forward=24, ",
    ),
    broken.CallsPastTheCounters: (
        "counts-its-cost",
        r"counters Evaluations\(forward=24, .* model did Evaluations\(forward=25, .* underscore",
    ),
    broken.RunsTheModelItself: (
        "counts-its-cost",
        "runs the layer 'coarse', the layer 'fine' of the model behind the backend's back",
    ),
    broken.NeedsMoreThanItSays: (
        "counts-its-cost",
        "asks the backend for attention, which it doesn't name in needs",
    ),
    broken.Underestimates: (
        "foresees-its-cost",
        r"foresees Evaluations\(forward=20, .* spends Evaluations\(forward=24, .* must be equal",
    ),
    broken.NotAsSigned: ("is-honest-about-its-sign", "says signed=False, and has values down to -"),
    broken.KeepsObjectsInSettings: ("has-plain-settings", "are no JSON .* keep plain data"),
    broken.DependsOnItsCompany: ("answers-lists-one-by-one", "must not depend on its company"),
    broken.BadName: ("describes-itself", "BadName has the name 'BadName': .* kebab-case"),
}


def first_failure(method: type[TextImageAttributor]) -> tuple[str, str]:
    """The first check that fails by itself, and its message."""
    for check in attributor_checks():
        try:
            check(method)
        except AssertionError as error:
            return check.name, str(error)
    raise AssertionError(f"all checks pass {method.name}")


@pytest.mark.parametrize("name", METHODS)
def test_registered_methods(name: str) -> None:
    check_attributor(METHODS[name])


@pytest.mark.parametrize("method", BROKEN, ids=lambda method: method.__name__)
def test_broken_methods(method: type[TextImageAttributor]) -> None:
    check, message = BROKEN[method]
    with pytest.raises(AssertionError, match=message):
        check_attributor(method)
    # The first to fail is the one that names the fault; by itself it fails as well.
    found, told = first_failure(method)
    assert found == check
    assert told.startswith(method.name)


def test_an_option_that_is_in_no_settings() -> None:
    """It shows where the option isn't the default."""
    with pytest.raises(AssertionError, match="an option that changes the answer is missing from"):
        check_attributor(lambda backend: broken.ForgetsAnOption(backend, gain=2.0))
    check_attributor(broken.ForgetsAnOption)


@pytest.mark.parametrize("check", attributor_checks(), ids=str)
def test_checks_one_by_one(check: Check) -> None:
    """Each stands by itself, as a test of its own in somebody else's suite."""
    check(Occlusion)


def test_options() -> None:
    check_attributor(lambda b: DAAM(b, keep=("layer", "head"), clamp="per-map"))
    check_attributor(lambda b: AttentionXGradient(b, step_weighting="equal"))


@pytest.mark.parametrize("name", STEPWISE)
def test_through_the_encoder(name: str) -> None:
    kind = STEPWISE[name]
    check_attributor(lambda b: kind(b, wrt="tokens", step_weighting="equal"))


#: One of each way to take noise; the others are in the whole suite.
TUNNELS = {("occlusion", "smoothgrad"), ("input-x-gradient", "vargrad"), ("shapley", "smoothgrad")}


@pytest.mark.parametrize(
    ("name", "nt_type"),
    [
        pytest.param(*case, marks=[] if case in TUNNELS else pytest.mark.slow)
        for case in product(STEPWISE, ("smoothgrad", "vargrad"))
    ],
)
def test_a_noise_tunnel_over_every_method_that_takes_noise(name: str, nt_type: Any) -> None:
    kind = STEPWISE[name]
    check_attributor(lambda b: NoiseTunnel(kind(b), nt_samples=2, nt_type=nt_type))


def test_given_trajectories() -> None:
    """A backend that can't draw needs images of everything that is tested."""

    class Mute(ToyModel):
        @property
        def capabilities(self) -> frozenset[str]:
            return super().capabilities - {"sample"}

    model = ToyModel()
    prompts = ["circle", "a turquoise square below", "a red circle and a blue circle"]
    drawn = model.sample(prompts, steps=2)
    with pytest.raises(ValueError, match="no trajectory with an image drawn without guidance"):
        check_attributor(Occlusion, drawn, backend=Mute())
    plain = replace(drawn[1], negative_embeddings=None, guidance_scale=1.0)
    before = footprint(model)
    check_attributor(Occlusion, [*drawn, plain], backend=Mute())
    assert footprint(model) == before


def test_methods_that_can_not_be_made() -> None:
    class Poor(ToyModel):
        @property
        def capabilities(self) -> frozenset[str]:
            return frozenset({"sample", "denoise"})

    with pytest.raises(MissingCapabilityError, match="daam needs attention"):
        check_attributor(DAAM, backend=Poor())

    def nothing(backend: Backend) -> TextImageAttributor:
        return np.zeros(3)  # type: ignore[return-value]

    with pytest.raises(AssertionError, match="is no attributor"):
        check_attributor(nothing)


def test_needs_no_framework() -> None:
    """Run by itself: another test of this process may have imported one."""
    import subprocess

    script = (
        "import sys\n"
        "from wordlight.attribution import Occlusion\n"
        "from wordlight.attribution.testing import check_attributor\n"
        "check_attributor(Occlusion)\n"
        "assert not {'torch', 'jax', 'diffusers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
