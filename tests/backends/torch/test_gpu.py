"""What only a GPU shows: kernels of half precision, arrays on two devices, its allocator.

``make test-gpu``; ``make test-gpu DEVICE=cpu`` tries the tests themselves.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import wordlight
from wordlight.attribution import DAAM, InputXGradient
from wordlight.attribution.registry import available
from wordlight.attribution.testing import check_attributor
from wordlight.backends import trace
from wordlight.backends.backend import MissingCapabilityError
from wordlight.backends.testing import check_backend
from wordlight.backends.torch.tiny import build_tiny, draw_tiny
from wordlight.backends.training.blueprints import SCENES, Sizes
from wordlight.backends.training.train_autoencoder import train_autoencoder
from wordlight.backends.training.train_denoiser import train_denoiser
from wordlight.backends.training.training import Recipe, Setup, averaged_weights

DEVICE = os.environ.get("WORDLIGHT_DEVICE", "cuda")
PRECISIONS = ("float32", "float16", "bfloat16")
PROMPT = "a red circle to the left of a blue square"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE == "cuda" and not torch.cuda.is_available(),
        reason="asks what only a GPU shows, and there is none; runs where PyTorch sees one",
    ),
]


@pytest.fixture(autouse=True)
def exact_convolutions() -> Iterator[None]:
    """TF32 rounds float32 to ten bits, which the checks of float32 would tell."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_the_embedded_model(dtype: str) -> None:
    check_backend("scenes", device=DEVICE, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", sorted(available()))
def test_methods(name: str, dtype: str) -> None:
    backend = wordlight.load("scenes", device=DEVICE, dtype=dtype)
    if available()[name].needs - backend.capabilities:
        with pytest.raises(MissingCapabilityError, match=name):
            available()[name](backend)
        return
    check_attributor(available()[name], backend=backend)


@pytest.mark.parametrize("family", ["sdxl", "sd3", "flux-dev", "qwen-image", "z-image"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_trace_changes_nothing(family: str, dtype: str) -> None:
    pipe = build_tiny(family)
    pipe.to(DEVICE, getattr(torch, dtype))
    # What diffusers does for a half autoencoder of Stable Diffusion XL is deprecated.
    pipe.vae.register_to_config(force_upcast=False)
    plain = draw_tiny(family, pipe, PROMPT)
    with trace(pipe) as run:
        traced = draw_tiny(family, pipe, PROMPT)
    np.testing.assert_array_equal(plain, traced)
    assert np.isfinite(np.asarray(DAAM.from_trace(run))).all()


@pytest.mark.skipif(
    DEVICE != "cuda",
    reason="PyTorch limits the memory of CUDA devices alone; runs where WORDLIGHT_DEVICE is cuda",
)
def test_memory_that_runs_out_halves_the_batch() -> None:
    """A real allocator's refusal, of a share of the card that is set for it."""
    backend = wordlight.load("scenes", device=DEVICE)
    run = backend.sample(PROMPT, seed=1, height=256, width=256, steps=2)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    expected = InputXGradient(backend, steps=1).attribute(run)
    peak = torch.cuda.max_memory_allocated()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.6 * peak / total)
    try:
        found = InputXGradient(backend, steps=1).attribute(run)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert found.provenance.halvings > 0
    # Kernels of fewer rows add up in another order.
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=1e-3)


#: On a GPU the fourth call of a training's step is captured, and replayed from then on.
TRAINED = 8


@pytest.mark.usefixtures("small_training")
@pytest.mark.parametrize("stage", ["autoencoder", "denoiser"])
def test_steps_replayed_as_a_graph_train_as_eager_ones(tmp_path: Path, stage: str) -> None:
    blueprint = replace(SCENES, sizes=Sizes((8, 8, 8), 4, 32, 2, (16, 16)))

    def setup_of(folder: Path, steps: int, *, eager: bool) -> Setup:
        recipe = Recipe(steps=steps, batch=4, rate=1e-3, warmup=2, cooldown=0, seed=3)
        return Setup(blueprint, folder, recipe, 8, DEVICE, eager=eager)

    def trained(name: str, steps: int, *, eager: bool) -> dict[str, torch.Tensor]:
        folder = tmp_path / name
        if stage == "denoiser":
            shutil.copytree(tmp_path / "first", folder)
        setup = setup_of(folder, steps, eager=eager)
        if stage == "autoencoder":
            train_autoencoder(setup)
        else:
            train_denoiser(setup, (16, 16), check_prompts=1)
        return averaged_weights(folder / f"{stage}.safetensors")

    if stage == "denoiser":
        train_autoencoder(setup_of(tmp_path / "first", 1, eager=True))
    replayed = trained("replayed", TRAINED, eager=False)
    eager = trained("eager", TRAINED, eager=True)
    half = trained("half", TRAINED // 2, eager=True)
    # Kernels may add up in another order, of which Adam's steps make more than rounding.
    assert _distance(replayed, eager) < 0.1 * _distance(half, eager)


def _distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    squares = (float((weights - other[name]).square().sum()) for name, weights in one.items())
    return math.sqrt(sum(squares))
