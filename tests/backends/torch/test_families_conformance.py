"""``check_backend`` on the tiny pipeline of each family."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wordlight.backends.backend import MissingCapabilityError
from wordlight.backends.testing import check_backend
from wordlight.backends.testing.subject import PROMPTS
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.tiny import SIZE, TINY, build_tiny, draw_tiny
from wordlight.backends.trajectory import Trajectory

#: One that edits, one whose batches have prompts of different lengths, one that predicts nothing,
#: one with experts, one of videos.
QUICK = {"instruct-pix2pix", "z-image", "cogview-4", "hidream", "wan-2.2"}


def size_of(family: str) -> tuple[int, int]:
    call = TINY[family].call
    return call.get("height", SIZE[0]), call.get("width", SIZE[1])


def run_of(family: str, backend: TorchBackend) -> Trajectory | None:
    """A run of a pipeline that wants more than a prompt; None where it can be sampled."""
    if "sample" in backend.capabilities:
        return None
    with backend.trace() as traced:
        draw_tiny(family, backend.pipe, PROMPTS[0])
    return traced.trajectories[0]


@pytest.mark.parametrize(
    "family", [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in TINY]
)
def test_conformance(family: str) -> None:
    backend = TorchBackend(build_tiny(family))
    check_backend(backend, run_of(family, backend), size=size_of(family))


@pytest.mark.parametrize("family", ["instruct-pix2pix", "sdxl-refiner", "flux-kontext"])
def test_pipelines_that_want_a_picture_do_not_sample(family: str) -> None:
    backend = TorchBackend(build_tiny(family))
    assert "sample" not in backend.capabilities
    with pytest.raises(MissingCapabilityError, match="takes more than a prompt"):
        backend.sample("a red circle", steps=1)
    # XL's refiner is shown nothing but the latents.
    assert ("invert" in backend.capabilities) == (family == "sdxl-refiner")


def test_an_image_of_kandinsky_does_not_depend_on_longer_prompts_beside_it() -> None:
    """Its denoiser attends to what a shorter prompt is filled up with."""
    backend = TorchBackend(build_tiny("kandinsky-5"))
    asked: dict[str, Any] = {"steps": 2, "height": 64, "width": 128}
    first, second = backend.sample(PROMPTS, seed=[3, 4], **asked)
    assert len(first.tokens) < len(second.tokens)
    alone = backend.sample(PROMPTS[0], seed=3, **asked)
    assert (first.latents == alone.latents).all()


def test_kandinsky_draws_its_own_sizes_alone() -> None:
    backend = TorchBackend(build_tiny("kandinsky-5"))
    with pytest.raises(ValueError, match=r"draws images of 64 x 128 pixels .* alone, not 64 x 64"):
        backend.sample("a red circle", height=64, width=64)
    assert (backend.sampling.height, backend.sampling.width) == (64, 128)


def test_qwen_image_takes_a_guidance_scale() -> None:
    """It is that of its negative prompt, ``true_cfg_scale``; the other is of distilled models."""
    pipe = build_tiny("qwen-image")
    backend, asked = TorchBackend(pipe), {"steps": 2, "height": 32, "width": 64}
    runs = [backend.sample("a red circle", guidance_scale=scale, **asked) for scale in (1.0, 5.0)]
    assert [run.guidance_scale for run in runs] == [1.0, 5.0]
    assert [run.negative_embeddings is None for run in runs] == [True, False]
    with backend.trace() as traced:
        draw_tiny("qwen-image", pipe, "a red circle", true_cfg_scale=3.0)
        draw_tiny("qwen-image", pipe, "a red circle", negative_prompt=None)
    assert [run.guidance_scale for run in traced.trajectories] == [3.0, 1.0]


def test_hunyuan_image_takes_a_guidance_scale() -> None:
    """Its pipelines have it in an object; it stays as it was."""
    pipe = build_tiny("hunyuan-image")
    backend, before = TorchBackend(pipe), pipe.guider
    runs = [
        backend.sample("a red circle", steps=2, guidance_scale=scale, height=32, width=64)
        for scale in (1.0, 5.0)
    ]
    assert [run.guidance_scale for run in runs] == [1.0, 5.0]
    assert [run.negative_embeddings is None for run in runs] == [True, False]
    assert pipe.guider is before
    assert not torch.equal(*(torch.from_numpy(run.latents[1]) for run in runs))
