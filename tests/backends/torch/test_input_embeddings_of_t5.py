"""Flux.1's text encoder from its input embeddings on: methods with ``wrt="tokens"``."""

from __future__ import annotations

from typing import Any

import pytest

from wordlight import trace
from wordlight.attribution import IntegratedGradients
from wordlight.backends.backend import MissingCapabilityError
from wordlight.backends.testing import checks
from wordlight.backends.testing.subject import Subject
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.tiny import build_tiny, draw_tiny

PROMPT = "a red circle"


@pytest.fixture(scope="module")
def backend() -> TorchBackend:
    return TorchBackend(build_tiny("flux-schnell"))


def test_states_of_input_embeddings_are_those_of_the_prompt(backend: TorchBackend) -> None:
    checks.encodes_from_token_embeddings(Subject(backend, size=(32, 64)))


def test_maps_of_tokens_share_out_the_whole_change(backend: TorchBackend) -> None:
    """Integrated gradients are complete, along a path through the text encoder too."""
    with trace(backend.pipe) as run:
        draw_tiny("flux-schnell", backend.pipe, PROMPT, max_sequence_length=512)
    (trajectory,) = run.trajectories
    method = IntegratedGradients(backend, wrt="tokens", n_steps=8, steps=[1])
    error = method.attribute(trajectory).provenance.completeness_error
    assert error is not None
    assert error < 0.05


def test_a_run_of_another_length_is_refused(backend: TorchBackend) -> None:
    with trace(backend.pipe) as run:
        draw_tiny("flux-schnell", backend.pipe, PROMPT, max_sequence_length=256)
    method = IntegratedGradients(backend, wrt="tokens", n_steps=2, steps=[1])
    with pytest.raises(ValueError, match="needs embeddings that the text encoder made"):
        method.attribute(run.trajectories[0])


@pytest.mark.parametrize("family", ["sd3", "chroma", "pixart-sigma"])
def test_other_transformers_say_why_they_have_none(family: str) -> None:
    made: Any = TorchBackend(build_tiny(family))
    with pytest.raises(MissingCapabilityError, match="states of one text encoder that is told no"):
        IntegratedGradients(made, wrt="tokens")
