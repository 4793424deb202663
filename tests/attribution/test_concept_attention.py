"""Concept attention: answers on paper, and a plain implementation on the toy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from tests.toys import ToyBackend, toy_trajectory
from wordlight.attribution import ConceptAttention
from wordlight.attribution.testing import check_attributor
from wordlight.attribution.testing.model import HEADS, WIDTH, ToyModel
from wordlight.backends.attention import AttentionMean, AttentionMeans, AttentionQuery
from wordlight.backends.backend import Conditioning, MissingCapabilityError


class Products(ToyBackend):
    """Gives the same products at every step: of the prompt's five tokens, then of concepts."""

    capabilities = frozenset({*ToyBackend.capabilities, "concept_attention", "encode"})

    def encode(self, prompts: Any) -> Conditioning:
        return Conditioning(np.zeros((len(prompts), 12, 5)))

    def _concept_attention(
        self, trajectory: Any, query: AttentionQuery, steps: tuple[int, ...], concepts: Any
    ) -> AttentionMeans:
        values = np.array([0, 7, 7, -1, 2, *range(1, 1 + len(concepts))], np.float32)
        maps = values[:, None, None] * np.array([[1, -1]], np.float32)
        # The mean of two heads.
        return AttentionMeans((AttentionMean(maps, 2, layer="one"),))


def test_on_paper() -> None:
    """``<start> red circle <end> <pad>`` at two pixels: words have their concepts' products, red 1
    and circle 2, and special positions those of the prompt's tokens."""
    trajectory = toy_trajectory("red circle", grid=(1, 2), steps=3, context=5)
    maps = ConceptAttention(Products()).attribute(trajectory)
    assert np.allclose(np.asarray(maps["red"]), [[1, -1]])
    assert np.allclose(np.asarray(maps["circle"]), [[2, -2]])
    assert np.allclose(np.asarray(maps["<end>"]), [[-1, 1]])
    assert maps.provenance.forward == 2 * 3
    # A phrase is encoded as one, and has the mean of its tokens.
    phrase = ConceptAttention(Products()).attribute(trajectory, ["red circle"])
    assert np.allclose(np.asarray(phrase["red circle"]), [[1.5, -1.5]])
    # Summed over the two heads, the words have 2 and 4, and padding 4 against both.
    shares = ConceptAttention(Products(), scores="softmax").attribute(trajectory)
    red, both = np.exp(2), np.exp(2) + np.exp(4)
    assert np.allclose(np.asarray(shares["red"])[0, 0], red / both)
    assert np.allclose(np.asarray(shares["circle"])[0, 0], 1 - red / both)
    pad = np.exp(4)
    assert np.allclose(np.asarray(shares["<pad>"])[0, 0], pad / (both + pad))


def test_by_hand_on_the_toy() -> None:
    """The toy's fine layer written out again, token by token."""

    class FineOnly(ToyModel):
        def __init__(self) -> None:
            super().__init__()
            self._layers = self._layers[:1]

    model = FineOnly()
    trajectory = model.sample("a red circle", seed=0)
    maps = ConceptAttention(model).attribute(trajectory, ["a", "red", "circle", "dog"])
    layer = model._layers[0]
    concepts = np.stack([model.encode([w]).embeddings[0, 1] for w in ("a", "red", "circle", "dog")])
    total = np.zeros((4, int(np.prod(trajectory.grid))))
    for step in range(trajectory.steps):
        places = trajectory.latents[step].reshape(len(trajectory.latents[step]), -1).T
        at_time = np.sin(trajectory.timesteps[step] / 1000 * np.arange(1, WIDTH + 1))
        for head in range(HEADS):
            queries = places @ layer.query[head] + at_time
            text = trajectory.embeddings
            attention = softmax(queries @ (text @ layer.key[head]).T / np.sqrt(WIDTH), axis=1)
            outputs = attention @ (text @ layer.value[head])
            keys = concepts @ layer.key[head]
            for index, key in enumerate(keys):
                scores = np.array([key @ k for k in (*keys, *queries)]) / np.sqrt(WIDTH)
                values = np.concatenate([concepts @ layer.value[head], outputs])
                total[index] += outputs @ (softmax(scores) @ values)
    wanted = total / trajectory.steps / HEADS
    for word, own in zip(("a", "red", "circle", "dog"), wanted, strict=True):
        # Products come in float32.
        assert np.allclose(np.asarray(maps[word]).ravel(), own, rtol=1e-4, atol=1e-5)
    assert [word.text for word in maps.outside] == ["dog"]


def test_conformance_of_the_options() -> None:
    check_attributor(lambda b: ConceptAttention(b, context="prompt", layers=["fine"]))
    check_attributor(lambda b: ConceptAttention(b, scores="softmax"))


def test_what_it_refuses() -> None:
    with pytest.raises(MissingCapabilityError, match="concept-attention needs concept_attention"):
        ConceptAttention(ToyBackend())
    model = ToyModel()
    with pytest.raises(ValueError, match="scores must be 'product' or 'softmax'"):
        ConceptAttention(model, scores="sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"with '\{word\}' once"):
        ConceptAttention(model, context="dog")
    trajectory = model.sample("a red circle", seed=0)
    with pytest.raises(ValueError, match="no cross-attention layer 'middle'"):
        ConceptAttention(model, layers=["middle"]).attribute(trajectory)
    query = AttentionQuery(kind="self")
    with pytest.raises(ValueError, match="concept attention is of cross-attention"):
        model.concept_attention(trajectory, query, (0,), trajectory.embeddings[:2])
