"""Targets and input spaces on the tiny pipeline: whole chains of networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.backends.torch.tiny import build_tiniest_pipe, build_tiny_pipe
from wordlight.attribution import (
    DecodedChannel,
    Guidance,
    InputXGradient,
    IntegratedGradients,
    NoiseTunnel,
    Occlusion,
    PixelTarget,
    PredictionNorm,
    Region,
)
from wordlight.attribution.step import InputSpace
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.trajectory import Trajectory

PROMPT = "a red circle and a blue square"


@pytest.fixture(scope="module")
def backend() -> TorchBackend:
    return TorchBackend(build_tiniest_pipe("v_prediction").to(torch.float64), steps=4)


@pytest.fixture(scope="module")
def trajectory(backend: TorchBackend) -> Trajectory:
    return backend.sample(PROMPT, seed=3, height=16, width=24)


@pytest.fixture(scope="module")
def exact() -> TorchBackend:
    """Of the larger tiny model: the other's words change too little for bfloat16."""
    return TorchBackend(build_tiny_pipe("v_prediction").to(torch.float64), steps=4)


TARGETS: list[PixelTarget] = [
    Guidance(),
    PredictionNorm(),
    Region(np.eye(8, 12)),
    DecodedChannel("blue"),
]


@pytest.mark.parametrize(
    ("target", "wrt"),
    [*((target, "embeddings") for target in TARGETS), (TARGETS[3], "tokens")],
    ids=lambda value: getattr(value, "name", value),
)
def test_integrated_gradients_share_out_every_target(
    backend: TorchBackend, trajectory: Trajectory, target: PixelTarget, wrt: InputSpace
) -> None:
    """The slopes are exact, so the error falls with the nodes. Through encoder and decoder the path
    bends the most: there eight nodes leave a few per cent."""
    method = IntegratedGradients(backend, steps=1, wrt=wrt)
    words = [PROMPT]  # slopes are linear: one player has the sum of its words
    errors = []
    for nodes in (2, 8):
        _, delta = method.attribute(
            trajectory, words, target=target, n_steps=nodes, return_convergence_delta=True
        )
        errors.append(float(delta.relative.max()))
    assert errors[1] < (0.1 if wrt == "tokens" else 0.02)
    assert errors[1] < 0.5 * errors[0]


def test_special_positions_carry_nothing_through_the_encoder(
    backend: TorchBackend, trajectory: Trajectory
) -> None:
    """Their input embeddings are those of the empty prompt, where both have the same token."""
    maps = Occlusion(backend, steps=1, wrt="tokens").attribute(trajectory)
    # float64's rounding: batches of other compositions are summed in other orders.
    assert np.abs(np.asarray(maps["<start>"])).max() < 1e-12
    assert np.abs(np.asarray(maps["<pad>"])).max() < 1e-12
    outside = Occlusion(backend, steps=1).attribute(trajectory)
    assert np.abs(np.asarray(outside["<pad>"])).max() > 1e-6


def test_a_noise_tunnel_through_networks(backend: TorchBackend, trajectory: Trajectory) -> None:
    method = Occlusion(backend, steps=1)
    plain = method.attribute(trajectory).data.values
    still = NoiseTunnel(method, stdevs=0.0, nt_samples=2).attribute(trajectory).data.values
    assert np.allclose(still, plain, rtol=1e-6)
    noisy = NoiseTunnel(method, stdevs=0.5, nt_samples=2).attribute(trajectory).data.values
    assert np.abs(noisy - plain).max() > 1e-3 * np.abs(plain).max()


@pytest.mark.parametrize(
    ("decoder", "dtype"),
    [
        ("same", torch.bfloat16),
        ("float32", torch.float16),
        pytest.param("same", torch.float16, marks=pytest.mark.slow),
        pytest.param("float32", torch.bfloat16, marks=pytest.mark.slow),
    ],
)
def test_a_colour_in_half_precision(decoder: str, dtype: torch.dtype, exact: TorchBackend) -> None:
    """Also where the autoencoder alone stayed in float32, as live pipelines have it."""
    trajectory = exact.sample(PROMPT, seed=3, height=16, width=24)
    pipe = build_tiny_pipe("v_prediction").to(dtype)
    if decoder == "float32":
        pipe.vae.to(torch.float32)
    half = TorchBackend(pipe, steps=4)
    red = DecodedChannel("red")
    for method in (Occlusion, InputXGradient):
        found, expected = (
            method(one, steps=1).attribute(trajectory, target=red).data.values
            for one in (half, exact)
        )
        # Words of a random model change little of bfloat16's eight bits: only the whole is alike.
        likeness = (found * expected).sum() / np.linalg.norm(found) / np.linalg.norm(expected)
        assert likeness > 0.8
    (given,) = half.invert([trajectory.image], [PROMPT], steps=2)
    (exactly,) = exact.invert([trajectory.image], [PROMPT], steps=2)
    # bfloat16's eight bits, through the autoencoder.
    assert np.abs(given.latents - exactly.latents).max() < 0.1
    latents = torch.as_tensor(trajectory.latents[-1:], dtype=dtype)
    assert half.images_of(latents)[0].shape == trajectory.image.shape
