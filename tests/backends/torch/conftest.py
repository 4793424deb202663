"""Models that several files ask: a tiny random one, and what Captum is asked about."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionPipeline

from tests.backends.torch.captum_cases import STEP, Case, ReversibleToy, make_case, tiny
from tests.backends.torch.tiny import build_tiny_pipe
from tests.toys import toy_trajectory
from wordlight.attribution.captum.region import CaptumForward, captum_forward
from wordlight.backends.torch.backend import TorchBackend


@pytest.fixture(scope="session")
def shared_pipe() -> StableDiffusionPipeline:
    """For tests that leave the pipeline as it was."""
    return build_tiny_pipe()


@pytest.fixture(scope="session")
def backend(shared_pipe: StableDiffusionPipeline) -> TorchBackend:
    return TorchBackend(shared_pipe, model_id="tiny", steps=3, guidance_scale=3.0)


@pytest.fixture
def fresh_pipe() -> StableDiffusionPipeline:
    """For tests that change the pipeline."""
    return build_tiny_pipe()


@pytest.fixture(scope="module")
def small() -> Case:
    """A tiny model that Captum can ask."""
    return make_case(tiny(torch.float32), 1e-4, size=16)


@pytest.fixture
def toy() -> ReversibleToy:
    return ReversibleToy("saturating")


@pytest.fixture
def toy_forward(toy: ReversibleToy) -> CaptumForward:
    return captum_forward(toy, toy_trajectory(), steps=[STEP])
