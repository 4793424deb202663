"""Words of several text encoders: the union of their places, or one stream by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.toys import ToyBackend, toy_tokens, toy_trajectory
from wordlight.attribution import DAAM, TextImageAttributor
from wordlight.attribution.methods.by_stream import ByStream
from wordlight.attribution.registry import available
from wordlight.attribution.testing.model import ToyModel
from wordlight.backends.attention import AttentionMean, AttentionMeans
from wordlight.backends.tokens import Tokens
from wordlight.backends.trajectory import Trajectory

METHODS = {
    name: kind
    for name, kind in available().items()
    if kind.family == "attention" and kind.__module__.startswith("wordlight.")
}


def twice(prompt: str = "red circle") -> Trajectory:
    """A prompt that two encoders read, of five positions each."""
    one = toy_trajectory(prompt, grid=(1, 2), steps=1, context=5)
    tokens = Tokens.joined([("clip", toy_tokens(prompt, 5)), ("t5", toy_tokens(prompt, 5))])
    double = [np.concatenate([e, e]) for e in (one.embeddings, one.empty_embeddings)]
    return replace(one, tokens=tokens, embeddings=double[0], empty_embeddings=double[1])


def test_daam_on_paper() -> None:
    """Position k gets attention k: red stands at 1 and 6, circle at 2 and 7."""
    values = np.arange(10, dtype=np.float32)[:, None, None] * np.ones((1, 1, 2), np.float32)
    backend = ToyBackend(attention=AttentionMeans((AttentionMean(values, 1),)))
    trajectory = twice()
    both = DAAM(backend).attribute(trajectory)
    assert np.allclose(both["red"], (1 + 6) / 2)
    clip = DAAM(backend, stream="clip").attribute(trajectory)
    assert np.allclose(clip["red"], 1)
    t5 = DAAM(backend).attribute(trajectory, stream="t5")
    assert np.allclose(t5["circle"], 7)
    # The other encoder's five positions are one player.
    assert np.allclose(t5["<other>"], np.mean([0, 1, 2, 3, 4]))
    assert t5.provenance.settings["stream"] == "t5"
    assert sum(t5.shares.values()) == pytest.approx(1)
    assert t5.shares["<other>"] == pytest.approx(10 / 45)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_attention_takes_a_stream(name: str) -> None:
    kind: type[TextImageAttributor] = METHODS[name]
    assert issubclass(kind, ByStream)
    method: Any = kind(ToyModel(), stream="t5")
    with pytest.raises(ValueError, match="no stream 't5': there are clip, gemma"):
        method.attribute(_named(ToyModel().sample("a red circle", seed=0)))
    with pytest.raises(ValueError, match="no stream 't5': one encoder reads the prompt"):
        method.attribute(ToyModel().sample("a red circle", seed=0))


def _named(trajectory: Trajectory) -> Trajectory:
    """The toy's sixteen positions as those of two encoders."""
    tokens = trajectory.tokens
    parts = [("clip", tokens.at(range(8))), ("gemma", tokens.at(range(8, 16)))]
    return replace(trajectory, tokens=Tokens.joined(parts))


@pytest.mark.parametrize("name", [n for n in METHODS if n not in ("concept-attention",)])
def test_a_stream_has_the_maps_of_its_tokens(name: str) -> None:
    """With all words in one of two streams, that stream's maps are those of both."""
    model = ToyModel()
    trajectory = _named(model.sample("a red circle", seed=0))
    options = {"context": "prompt"} if name == "open-vocabulary" else {}
    whole = METHODS[name](model, **options).attribute(trajectory)
    clip = METHODS[name](model, stream="clip", **options).attribute(trajectory)
    tolerance = 1e-5 * np.abs(np.asarray(whole["circle"])).max()
    # GoCA and relative attention divide by special positions, of which the stream has fewer.
    if name not in ("goca", "relative-attention"):
        assert np.allclose(whole["circle"], clip["circle"], atol=tolerance)
    assert "<other>" in clip
    assert "<other>" not in whole


def test_from_trace_says_what_it_takes() -> None:
    other: Any = "a pipeline"
    with pytest.raises(TypeError, match=r"from_trace takes what `with wordlight.trace.*not a str"):
        DAAM.from_trace(other)
