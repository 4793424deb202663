"""Methods that encode anew: runs whose embeddings aren't quite, or aren't at all, what the encoder
makes of the prompt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.backends.torch.tiny import build_tiny_pipe
from wordlight.attribution import (
    InputXGradient,
    NoiseDifference,
    Occlusion,
    OpenVocabulary,
    TextImageAttributor,
)
from wordlight.backends import trace
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.tiny import build_tiny, draw_tiny
from wordlight.backends.trajectory import Trajectory

PROMPT = "a red circle and a blue square"


@pytest.fixture(scope="module")
def half() -> TorchBackend:
    return TorchBackend(build_tiny_pipe().to(torch.bfloat16), steps=2)


def encoding_anew(backend: TorchBackend) -> list[TextImageAttributor]:
    return [Occlusion(backend, steps=1, wrt="tokens"), NoiseDifference(backend, steps=1)]


def weighted(run: Trajectory, position: int, weight: float) -> Trajectory:
    embeddings = run.embeddings.copy()
    embeddings[position] *= weight
    return replace(run, embeddings=embeddings)


def test_runs_of_another_precision_are_explained(backend: TorchBackend, half: TorchBackend) -> None:
    """Either way, and half's own run too: rounding is no edit."""
    exact = backend.sample(PROMPT, seed=3)
    rounded = half.sample(PROMPT, seed=3)
    for explainer, run in ((half, exact), (backend, rounded), (half, rounded)):
        for method in encoding_anew(explainer):
            assert np.abs(np.asarray(method.attribute(run)["red"])).max() > 0
            for position, weight in ((2, 1.1), (3, 0.9)):
                with pytest.raises(ValueError, match="alone; this run's are others"):
                    method.attribute(weighted(run, position, weight))


def test_float32_runs_in_float32_may_differ_by_rounding_alone(backend: TorchBackend) -> None:
    run = backend.sample(PROMPT, seed=3)
    for method in encoding_anew(backend):
        with pytest.raises(ValueError, match="alone; this run's are others"):
            method.attribute(weighted(run, 2, 1.01))


def drawn_of(backend: TorchBackend, prompt: str) -> Trajectory:
    """As a pipeline is called that cuts what its context can't hold."""
    with trace(backend.pipe) as traced:
        backend.pipe(prompt, num_inference_steps=2, height=32, width=32, output_type="np")
    (run,) = traced.trajectories
    assert run.tokens.cut_at is not None
    return run


def test_a_prompt_cut_between_words(backend: TorchBackend) -> None:
    run = drawn_of(backend, "a red circle " * 10 + "above a blue square")
    word = ("circle", 0)
    for method in encoding_anew(backend):
        assert np.abs(np.asarray(method.attribute(run)[word])).max() > 0


def test_a_prompt_cut_inside_a_word(backend: TorchBackend) -> None:
    """28 words leave room for two of the three tokens of the last."""
    run = drawn_of(backend, "red " * 28 + "triangles and a circle")
    for method in (Occlusion, InputXGradient):
        maps = method(backend, steps=1, wrt="tokens").attribute(run)
        assert np.abs(np.asarray(maps["<cut>"])).max() > 0
    with pytest.raises(ValueError, match="inside a word, after 'triangle'"):
        NoiseDifference(backend, steps=1).attribute(run)


def test_words_beside_the_prompt_of_an_older_pipeline() -> None:
    """InstructPix2Pix encodes prompts by another method than the pipelines of today."""
    pipe = build_tiny("instruct-pix2pix")
    with trace(pipe) as run:
        draw_tiny("instruct-pix2pix", pipe, "a red circle")
    (trajectory,), explainer = run.trajectories, TorchBackend(pipe)
    made = explainer.encode(["a red circle", ""])
    np.testing.assert_array_equal(made.embeddings[0].detach(), trajectory.embeddings)
    np.testing.assert_array_equal(made.embeddings[1].detach(), trajectory.empty_embeddings)
    assert made.added == {}
    maps = OpenVocabulary(explainer).attribute(trajectory, ["cat", "square"])
    assert np.abs(maps["cat"].values - maps["square"].values).max() > 1e-3
