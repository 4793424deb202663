"""Targets, input spaces and what a call may ask for, on toys whose answers are known on paper."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.toys import CHANNELS, ToyBackend, toy_trajectory
from wordlight.attribution import (
    DAAM,
    GuidanceNorm,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    NoiseTunnel,
    Occlusion,
    Saliency,
    Shapley,
)
from wordlight.attribution.targets import DecodedChannel, PredictionNorm, Region
from wordlight.backends.backend import Conditioning, MissingCapabilityError

TRAJECTORY = toy_trajectory()
NEGATIVE = "dull"
DELTA = TRAJECTORY.embeddings - TRAJECTORY.empty_embeddings
ADDITIVE = [InputXGradient, IntegratedGradients, Occlusion, Shapley, KernelShap]
#: Maps are stored in float32; the toys' numbers are of order 10.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


class FullToy(ToyBackend):
    """A linear encoder in which a token changes all that follow, and a linear decoder."""

    capabilities = frozenset({*ToyBackend.capabilities, "encode_from", "decode"})
    ALPHA, SIGMA = 0.8, 0.6

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        rng = np.random.default_rng(11)
        self.mixing = np.tril(rng.standard_normal((12, 12)))
        self.colours = rng.standard_normal((3, CHANNELS))
        self.inputs = {
            text: rng.standard_normal((12, 5)) for text in (TRAJECTORY.prompt, "", NEGATIVE)
        }

    def trajectory(self) -> Any:
        """One whose embeddings are what the encoder makes of the tokens."""
        made = {text: self.mixing @ tokens for text, tokens in self.inputs.items()}
        return replace(
            TRAJECTORY,
            embeddings=made[TRAJECTORY.prompt],
            empty_embeddings=made[""],
            negative_prompt=NEGATIVE,
            negative_embeddings=made[NEGATIVE],
        )

    def _token_embeddings(self, text: str) -> Any:
        return self.inputs[text]

    def _encode_from(self, token_embeddings: Any) -> Conditioning:
        return Conditioning(self.mixing @ token_embeddings)

    def _encode_from_jvp(self, token_embeddings: Any, tangents: Any) -> Any:
        return self._encode_from(token_embeddings), self.mixing @ tangents

    def noise_level(self, timestep: float) -> tuple[float, float]:
        return self.ALPHA, self.SIGMA

    def _decode(self, latents: Any) -> Any:
        """Every latent pixel is four pixels, the top left one twice as bright."""
        pixels = np.einsum("rc,bcyx->bryx", self.colours, latents).repeat(2, 2).repeat(2, 3)
        pixels[..., ::2, ::2] *= 2
        return pixels

    def _decode_jvp(self, latents: Any, tangents: Any) -> Any:
        return self._decode(latents), self._decode(tangents)


def word_pushes(backend: ToyBackend) -> np.ndarray:
    """A_w·Δ_w for each position, ``(tokens, channels, y, x)``."""
    return np.einsum("cyxtd,td->tcyx", backend.jacobian, DELTA)


def test_prediction_norm_by_hand() -> None:
    backend = ToyBackend()
    target = PredictionNorm()
    (step,) = (1,)
    pushes = word_pushes(backend)
    base = TRAJECTORY.latents[step] + np.einsum(
        "cyxtd,td->cyx", backend.jacobian, TRAJECTORY.empty_embeddings
    )
    full = base + pushes.sum(0)
    total = np.linalg.norm(full, axis=0) - np.linalg.norm(base, axis=0)
    red = pushes[2]
    slope = InputXGradient(backend, steps=(step,)).attribute(TRAJECTORY, target=target)["red"]
    by_hand = (red * full / np.linalg.norm(full, axis=0)).sum(0)
    assert np.allclose(np.asarray(slope), by_hand, **CLOSE)
    gone = Occlusion(backend, steps=(step,)).attribute(TRAJECTORY, target=target)["red"]
    by_hand = np.linalg.norm(full, axis=0) - np.linalg.norm(full - red, axis=0)
    assert np.allclose(np.asarray(gone), by_hand, **CLOSE)
    maps, delta = IntegratedGradients(backend, steps=(step,)).attribute(
        TRAJECTORY, target=target, n_steps=64, return_convergence_delta=True
    )
    # The norm has a kink where the path passes near zero: 64 nodes leave a per cent there.
    assert np.abs(maps.data.sum("word").values - total).max() < 0.02 * np.abs(total).max()
    assert np.allclose(delta.target[0], total)
    assert maps.provenance.settings["target"] == "prediction-norm"


def test_where_there_is_no_push_there_is_no_direction() -> None:
    """A pixel that isn't pushed has zeros; one pushed 1e-10 times as much as others, its share."""
    backend = ToyBackend()
    backend.jacobian[:, 0, 0] = 0.0
    backend.jacobian[:, 1, 1] *= 1e-10
    g = word_pushes(backend).sum(0)
    norm = np.linalg.norm(g, axis=0)
    by_hand = (word_pushes(backend)[2, :, 1, 1] * g[:, 1, 1]).sum() / norm[1, 1]
    for kind in ADDITIVE:
        maps = kind(backend, steps=(1,)).attribute(TRAJECTORY)
        assert (maps.data.values[:, 0, 0] == 0).all()
        # What is left after differences of predictions of order 1 is good to 1e-16 / 1e-10.
        assert np.asarray(maps["red"])[1, 1] == pytest.approx(by_hand, rel=1e-4)
    still = ToyBackend()
    still.jacobian[:] = 0.0
    assert (Occlusion(still).attribute(TRAJECTORY).data.values == 0).all()


@pytest.mark.parametrize("method", ADDITIVE)
def test_a_region_is_the_same_maps_inside(method: type[InputXGradient]) -> None:
    backend = ToyBackend(bend="saturating")
    mask = np.zeros((8, 12))
    mask[:4, :6] = 1
    mask[4, 6] = 1  # a quarter of latent pixel (2, 3)
    everywhere = method(backend).attribute(TRAJECTORY).data.values
    inside = method(backend).attribute(TRAJECTORY, target=Region(mask)).data.values
    weights = np.zeros((4, 6))
    weights[:2, :3] = 1
    weights[2, 3] = 0.25
    assert np.allclose(inside, everywhere * weights, **CLOSE)


def test_bad_regions() -> None:
    for bad in (
        np.zeros((4, 6)),
        np.full((4, 6), 2.0),
        np.ones(4),
        np.ones((0, 4)),
        np.full((4, 6), -1.0),
    ):
        with pytest.raises(ValueError, match="mask must"):
            Region(bad)
    with pytest.raises(ValueError, match="a multiple of it"):
        Occlusion(ToyBackend()).attribute(TRAJECTORY, target=Region(np.ones((5, 5))))


@pytest.mark.parametrize("method", ADDITIVE)
def test_decoded_channel_by_hand(method: type[InputXGradient]) -> None:
    """Everything is linear: f_w = -σ/α colour·A_w·Δ_w, brightened by (2 + 1 + 1 + 1)/4."""
    backend = FullToy()
    maps = method(backend).attribute(TRAJECTORY, target=DecodedChannel("green"))
    red = np.einsum("c,cyx->yx", backend.colours[1], word_pushes(backend)[2])
    assert np.allclose(np.asarray(maps["red"]), -0.6 / 0.8 * 1.25 * red, **CLOSE)
    assert maps.provenance.settings["channel"] == "green"


def test_targets_that_cannot_be_had() -> None:
    with pytest.raises(MissingCapabilityError, match="the target decoded-channel needs decode"):
        Occlusion(ToyBackend()).attribute(TRAJECTORY, target=DecodedChannel("red"))
    with pytest.raises(ValueError, match="'red', 'green' or 'blue'"):
        DecodedChannel("pink")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="daam explains no pixel target"):
        DAAM(ToyBackend()).attribute(TRAJECTORY, target=PredictionNorm())


@pytest.mark.parametrize("method", ADDITIVE)
def test_through_the_encoder_by_hand(method: type[InputXGradient]) -> None:
    """With E = M·z, a token's share is what its input changes in all embeddings behind it."""
    backend = FullToy()
    trajectory = backend.trajectory()
    displacement = backend.inputs[trajectory.prompt] - backend.inputs[""]
    g = np.einsum("cyxtd,td->cyx", backend.jacobian, backend.mixing @ displacement)
    norm = np.linalg.norm(g, axis=0)
    moved = backend.mixing[:, 2:3] * displacement[2]
    by_hand = np.einsum("cyxtd,td,cyx->yx", backend.jacobian, moved, g / norm)
    maps = method(backend, wrt="tokens").attribute(trajectory)
    assert np.allclose(np.asarray(maps["red"]), by_hand, rtol=1e-4, atol=1e-3)
    assert np.allclose(maps.data.sum("word"), norm, rtol=1e-4)
    outside = method(backend).attribute(trajectory)["red"]
    assert np.abs(np.asarray(outside) - by_hand).max() > 1


@pytest.mark.parametrize("wrt", ["embeddings", "tokens"])
@pytest.mark.parametrize("method", ADDITIVE)
def test_the_negative_prompt_as_baseline_by_hand(method: type[InputXGradient], wrt: Any) -> None:
    """A token's share is what its way from the *negative* prompt's inputs changes."""
    backend = FullToy()
    trajectory = backend.trajectory()
    displacement = backend.inputs[trajectory.prompt] - backend.inputs[NEGATIVE]
    change = backend.mixing @ displacement
    g = np.einsum("cyxtd,td->cyx", backend.jacobian, change)
    norm = np.linalg.norm(g, axis=0)
    if wrt == "tokens":
        moved = backend.mixing[:, 2:3] * displacement[2]
    else:
        moved = np.zeros_like(change)
        moved[2] = change[2]
    by_hand = np.einsum("cyxtd,td,cyx->yx", backend.jacobian, moved, g / norm)
    maps = method(backend, wrt=wrt).attribute(trajectory, baselines="negative")
    assert np.allclose(np.asarray(maps["red"]), by_hand, rtol=1e-4, atol=1e-3)
    assert np.allclose(maps.data.sum("word"), norm, rtol=1e-4)
    assert maps.provenance.settings["baselines"] == "negative"


def test_the_strength_of_another_target() -> None:
    """The control is unsigned, also where a prompt weakens what is asked about."""
    backend = ToyBackend()
    step = 1
    base = TRAJECTORY.latents[step] + np.einsum(
        "cyxtd,td->cyx", backend.jacobian, TRAJECTORY.empty_embeddings
    )
    full = base + word_pushes(backend).sum(0)
    total = np.linalg.norm(full, axis=0) - np.linalg.norm(base, axis=0)
    assert total.min() < -1
    maps = GuidanceNorm(backend, steps=(step,)).attribute(TRAJECTORY, target=PredictionNorm())
    assert np.allclose(np.asarray(maps["red"]), np.abs(total), **CLOSE)


def test_saliency_through_the_encoder() -> None:
    """The expected square of a probe is the squared norm of the row of the whole chain."""
    backend = FullToy()
    trajectory = backend.trajectory()
    maps = Saliency(backend, wrt="tokens", probes=3000, steps=1).attribute(trajectory)
    delta = trajectory.embeddings - trajectory.empty_embeddings
    g = np.einsum("cyxtd,td->cyx", backend.jacobian, delta)
    direction = g / np.linalg.norm(g, axis=0)
    row = np.einsum("cyxtd,cyx,ts->yxsd", backend.jacobian, direction, backend.mixing)
    by_hand = np.linalg.norm(row[:, :, 2], axis=-1)
    # 3000 probes have a standard error of 1.3 %; six of them.
    assert np.allclose(np.asarray(maps["red"]), by_hand, rtol=0.08)


def test_an_edited_run_is_not_explained_through_the_encoder() -> None:
    backend = FullToy()
    trajectory = backend.trajectory()
    other = replace(trajectory, embeddings=trajectory.embeddings * 1.2)
    with pytest.raises(ValueError, match="made of the prompt alone"):
        Occlusion(backend, wrt="tokens").attribute(other)
    with pytest.raises(MissingCapabilityError, match="wrt='tokens' needs encode_from"):
        Occlusion(ToyBackend(), wrt="tokens")
    with pytest.raises(ValueError, match="'embeddings' or 'tokens'"):
        Occlusion(backend, wrt="words")  # type: ignore[arg-type]


def test_convergence_delta() -> None:
    backend = ToyBackend(bend="saturating")
    method = IntegratedGradients(backend, steps=(0, 2))
    errors = []
    for nodes in (1, 8, 64):
        maps, delta = method.attribute(TRAJECTORY, n_steps=nodes, return_convergence_delta=True)
        assert delta.values.shape == delta.target.shape == (2, 4, 6)
        shared = maps.data.sum("word").values
        assert np.allclose(shared, (delta.values + delta.target).mean(0), **CLOSE)
        errors.append(delta.relative.max())
        assert np.allclose(delta.maximum.max(), np.abs(delta.values / delta.target.max()).max())
    # The toy bends sharply (tanh of about ±10): one node misses most, 64 almost nothing.
    assert errors[0] > 0.5
    assert errors[0] > 2 * errors[1]
    assert errors[2] < 1e-3
    pairs = Shapley(backend).attribute([TRAJECTORY] * 2, return_convergence_delta=True)
    # Orders telescope: only float64 rounding of the toy is left.
    assert all(delta.relative.max() < 1e-12 for _, delta in pairs)
    for without in (Saliency, GuidanceNorm, DAAM):
        assert not without(backend).has_convergence_delta()
        with pytest.raises(ValueError, match="no convergence delta"):
            without(backend).attribute(TRAJECTORY, return_convergence_delta=True)


def test_options_of_one_call(capsys: pytest.CaptureFixture[str]) -> None:
    backend = ToyBackend(bend="saturating")
    method = IntegratedGradients(backend)
    maps = method.attribute(TRAJECTORY, n_steps=3, method="riemann_left", steps=1)
    fixed = IntegratedGradients(backend, n_steps=3, method="riemann_left", steps=1)
    assert (maps.data == fixed.attribute(TRAJECTORY).data).all()
    assert (maps.provenance.settings["n_steps"], method.n_steps) == (3, 8)
    with pytest.raises(TypeError, match="has no option 'probes'; it has steps, step_weighting"):
        method.attribute(TRAJECTORY, probes=3)
    capsys.readouterr()
    small = method.attribute(TRAJECTORY, internal_batch_size=1, show_progress=True)
    assert np.allclose(small.data, method.attribute(TRAJECTORY).data, rtol=1e-6)
    assert "steps: 3 of 3" in capsys.readouterr().err
    assert np.allclose(
        Occlusion(backend).attribute(TRAJECTORY, internal_batch_size=3).data,
        Occlusion(backend).attribute(TRAJECTORY).data,
        rtol=1e-6,
    )
    with pytest.raises(ValueError, match="internal_batch_size must be 1 or more"):
        method.attribute(TRAJECTORY, internal_batch_size=0)


def test_noise_tunnel_without_noise() -> None:
    backend = ToyBackend(bend="saturating")
    method = InputXGradient(backend, steps=(1,))
    plain = method.attribute(TRAJECTORY).data.values
    maps = NoiseTunnel(method, stdevs=0.0).attribute(TRAJECTORY)
    assert np.allclose(maps.data, plain, rtol=1e-6)
    squares = NoiseTunnel(method, nt_type="smoothgrad_sq", stdevs=0.0).attribute(TRAJECTORY)
    assert np.allclose(squares.data, plain**2, rtol=1e-5)
    still = NoiseTunnel(method, nt_type="vargrad", stdevs=0.0).attribute(TRAJECTORY)
    assert np.abs(still.data).max() < 1e-10
    assert not still.signed
    assert maps.signed


@pytest.mark.parametrize("kind", [InputXGradient, Occlusion])
def test_noise_tunnel_by_hand(kind: type[InputXGradient] | type[Occlusion]) -> None:
    """On the linear toy a word's map moves by ⟨A_w·noise, u⟩, with a known variance; so it does for
    occlusion, which compares with the noisy prompt's own value."""
    backend = ToyBackend()
    method = kind(backend, steps=(1,))
    sigma, samples = 0.5, 800
    maps = NoiseTunnel(method, nt_type="vargrad", nt_samples=samples, stdevs=sigma).attribute(
        TRAJECTORY
    )
    g = word_pushes(backend).sum(0)
    direction = g / np.linalg.norm(g, axis=0)
    row = np.einsum("cyxd,cyx->yxd", backend.jacobian[..., 2, :], direction)
    # A variance of 800 draws has a standard error of 5 %; six of them.
    assert np.allclose(np.asarray(maps["red"]), (sigma**2) * (row**2).sum(-1), rtol=0.3)
    mean = NoiseTunnel(method, nt_samples=samples, stdevs=sigma).attribute(TRAJECTORY)["red"]
    plain = np.asarray(method.attribute(TRAJECTORY)["red"])
    error = sigma * np.linalg.norm(row, axis=-1) / np.sqrt(samples)
    assert (np.abs(np.asarray(mean) - plain) < 5 * error).all()


def test_noise_tunnel_is_a_method_like_others() -> None:
    backend = ToyBackend()
    tunnel = NoiseTunnel(IntegratedGradients(backend, steps=(1,)), nt_samples=2, seed=3)
    first, again = (tunnel.attribute(TRAJECTORY, n_steps=2) for _ in range(2))
    assert (first.data == again.data).all()
    assert first.provenance.settings["of"]["n_steps"] == 2
    other = tunnel.attribute(TRAJECTORY, n_steps=2, seed=4)
    assert (first.data != other.data).any()
    # Two samples: each three forward passes and two nodes for each of ten players.
    assert (first.provenance.forward, first.provenance.jvp) == (2 * 3, 2 * 2 * 10)
    with pytest.raises(TypeError, match=r"step by step, .*, not DAAM\("):
        NoiseTunnel(DAAM(backend))  # type: ignore[arg-type]
    for bad in ({"nt_samples": 0}, {"stdevs": -1.0}, {"nt_type": "median"}, {"seed": -1}):
        with pytest.raises(ValueError, match="must be"):
            NoiseTunnel(InputXGradient(backend), **bad)  # type: ignore[arg-type]
