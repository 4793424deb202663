"""Backends keep to the rules, and the rules are such that breaking one is found."""

from __future__ import annotations

import numpy as np
import pytest

from tests.backends.testing import broken
from wordlight.attribution import DAAM
from wordlight.attribution.testing import check_attributor
from wordlight.attribution.testing.model import ToyModel
from wordlight.backends import load, loading
from wordlight.backends.backend import Backend
from wordlight.backends.testing import Check, backend_checks, check_backend

#: Which check finds each broken backend first, and what it says.
BROKEN: dict[type[Backend], tuple[str, str]] = {
    broken.OffsetsOfWhatIsCleaned: (
        "tokenizes-with-offsets",
        r"together they must have every character but spaces, in order",
    ),
    broken.CutsLongPrompts: ("tokenizes-with-offsets", r"must raise PromptTooLongError"),
    broken.ClaimsTooMuch: (
        "is-honest-about-its-capabilities",
        r"it claims decode, and decode_jvp raises NotImplementedError \(later\)",
    ),
    broken.ClaimsTooLittle: (
        "is-honest-about-its-capabilities",
        r"doesn't claim attention_vjp, and attention_vjp answers: .* MissingCapabilityError",
    ),
    broken.NamesNoPrimitive: (
        "is-honest-about-its-capabilities",
        r"doesn't claim denoise_vjp, and denoise_vjp raises NotImplementedError: without",
    ),
    broken.CountsCalls: (
        "counts-what-it-is-asked",
        r"denoise_jvp counts Evaluations\(forward=0, jvp=1, vjp=0\), .* jvp=2, vjp=0\)",
    ),
    broken.EncodesWithoutPositions: (
        "encodes-from-token-embeddings",
        r"encode_from\(token_embeddings\(p\)\) and encode\(\[p\]\): they are .* apart",
    ),
    broken.WidthFirst: (
        "samples-what-it-says",
        r"image is \(12, 16, 3\) uint8, and should be \(16, 12, 3\) uint8: height before width",
    ),
    broken.NoSeed: ("samples-by-seed", r"must depend on the seed alone"),
    broken.SeedOfTheBatch: (
        "samples-batches-one-by-one",
        r"an image drawn in company and alone: they are .* apart",
    ),
    broken.FreshNoiseEachStep: ("inverts-by-adding-noise", r"with one draw of noise"),
    broken.MixesRows: ("denoises-rows-one-by-one", r"a row denoised in company and alone"),
    broken.PredictsVelocity: (
        "takes-the-steps-that-it-predicts",
        r"predictions are in epsilon units",
    ),
    broken.KeepsTooMuch: (
        "takes-the-steps-that-it-predicts",
        r"check with a sampler of first order",
    ),
    broken.ForgetsAFactor: (
        "forward-mode-gives-slopes",
        r"denoise_jvp is 4\.8e-02 of its norm from differences",
    ),
    broken.AddsDirections: (
        "forward-mode-gives-slopes",
        r"of direction 2 of two and of that alone",
    ),
    broken.ScalesByTheEnd: (
        "parts-make-up-the-difference",
        r"the sum of denoise_parts and the difference of the predictions: they are",
    ),
    broken.ScalesByTheEncodersEnd: (
        "encoder-parts-make-up-the-difference",
        r"the sum of encode_from_parts and the difference of the embeddings: they are",
    ),
    broken.SkipsTheKeys: (
        "reverse-mode-transposes-forward-mode",
        r"⟨denoise_vjp\(v\), u⟩ and ⟨v, denoise_jvp\(u\)⟩: they are",
    ),
    broken.ScoresForProbabilities: (
        "attends-with-probabilities",
        r"sums to one over its keys but for .* after the softmax",
    ),
    broken.KeysAmongThemselves: (
        "gives-other-words-their-scores",
        r"attention to the prompt's own embeddings as keys, and to it",
    ),
    broken.KeysOverThePromptsSum: (
        "gives-other-words-their-scores",
        r"the prompt's own embeddings as words beside it, and p/\(1 \+ p\)",
    ),
    broken.DecodesOnItsSide: (
        "decodes-pixels",
        r"what decode gives is \(1, 3, 12, 16\), and should be \(1, 3, 16, 12\)",
    ),
    broken.StaysRandom: ("randomizes-and-restores", r"put the weights back in a finally"),
    broken.RemembersItsRuns: ("trajectories-travel", r"what the trajectory holds alone"),
}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_broken_backends(kind: type[Backend]) -> None:
    name, message = BROKEN[kind]
    with pytest.raises(AssertionError, match=message) as caught:
        check_backend(kind())
    assert str(caught.value).startswith(kind.__name__)
    # By itself the check fails as well, and those before it don't.
    checks = {check.name: check for check in backend_checks()}
    with pytest.raises(AssertionError, match=message):
        checks[name](kind())
    for before in list(checks)[: list(checks).index(name)]:
        checks[before](kind())


def test_the_numpy_model() -> None:
    check_backend(ToyModel())


@pytest.mark.parametrize("check", backend_checks(), ids=str)
def test_checks_one_by_one(check: Check) -> None:
    """Each stands by itself, as a test of its own in somebody else's suite."""
    check(ToyModel())


@pytest.mark.slow
def test_the_embedded_model_on_torch() -> None:
    check_backend(load("scenes"))


def test_a_model_by_name_on_a_device_in_a_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def load_toy(model: str, **where: object) -> Backend:
        asked.append((model, where))
        return ToyModel()

    monkeypatch.setattr(loading, "load", load_toy)
    check_backend("scenes", device="cpu", dtype="float64")
    check_attributor(DAAM, backend="scenes", device="cpu", dtype="bfloat16")
    assert asked == [
        ("scenes", {"device": "cpu", "dtype": "float64"}),
        ("scenes", {"device": "cpu", "dtype": "bfloat16"}),
    ]
    with pytest.raises(TypeError, match="is loaded already: give the model's name"):
        check_backend(ToyModel(), dtype="float16")


def test_backends_that_have_little() -> None:
    """What isn't claimed isn't asked for, but for the error."""

    class Poor(ToyModel):
        @property
        def capabilities(self) -> frozenset[str]:
            return frozenset({"encode", "denoise", "attention"})

    drawn = ToyModel().sample("a red circle", steps=2)
    check_backend(Poor(), drawn)
    with pytest.raises(ValueError, match="pass a trajectory of its own"):
        check_backend(Poor())
    check_backend(Poor(), ToyModel().sample("a red circle", steps=2, guidance_scale=1.0))
    with pytest.raises(ValueError, match="2 steps or more"):
        check_backend(Poor(), ToyModel().sample("a red circle", steps=1))


def test_samplers_that_draw_noise() -> None:
    check_backend(broken.DrawsNoise())


def test_other_sizes() -> None:
    check_backend(ToyModel(), size=(8, 20))


def test_nothing_is_left_behind() -> None:
    model = ToyModel()
    point = (np.ones((1, 3, 4, 6)), 500.0, model.encode(["a red circle"]))
    before = model.denoise(*point)
    check_backend(model)
    assert np.array_equal(model.denoise(*point), before)
    assert not model.hooks
