"""GramCol and GoCA: answers on paper, and plain implementations on the toy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import softmax

from tests.toys import ToyBackend, toy_tokens, toy_trajectory
from wordlight.attribution import GoCA, GramCol
from wordlight.attribution.methods.goca import agreement
from wordlight.attribution.resize import resize
from wordlight.attribution.testing import check_attributor
from wordlight.attribution.testing.model import HEADS, WIDTH, ToyModel
from wordlight.backends.attention import AttentionMean, AttentionMeans, AttentionQuery
from wordlight.backends.backend import MissingCapabilityError
from wordlight.backends.trajectory import Trajectory


class Columns(ToyBackend):
    """Gives the same columns at every step."""

    capabilities = frozenset({*ToyBackend.capabilities, "attention_measures"})


def test_standardising_on_paper() -> None:
    """``<start> red circle <end> <pad>`` at two pixels, in one head."""
    values = np.array([0, 1, 3, 0, 1], np.float32)[:, None, None] * np.ones((1, 1, 2), np.float32)
    values[..., 1] = 0.5
    backend = Columns(attention=AttentionMeans((AttentionMean(values, 1, step=0),)))
    trajectory = toy_trajectory("red circle", grid=(1, 2), steps=1, context=5)
    maps = GramCol(backend).attribute(trajectory)
    # At the first pixel mean 1 and deviation √1.2; at the second all tokens are alike.
    assert np.allclose(np.asarray(maps["circle"]), [[2 / np.sqrt(1.2), 0]], rtol=1e-5)
    assert np.allclose(np.asarray(maps["red"]), [[0, 0]], atol=1e-6)
    words = GramCol(backend, standardize="words").attribute(trajectory)
    # Of red and circle alone the mean is 2 and the deviation 1.
    assert np.allclose(np.asarray(words["red"]), [[-1, 0]], rtol=1e-5)
    plain = GramCol(backend, standardize=None).attribute(trajectory)
    assert np.allclose(np.asarray(plain["circle"]), [[3, 0.5]])
    kept = ("step", "layer", "head")
    assert backend.queries[-1] == AttentionQuery(keep=kept, measure="output-cosine")
    # A prompt of one token has no other to compare with.
    one = toy_trajectory("red", grid=(1, 2), steps=1, context=5)
    assert one.tokens.kinds == toy_tokens("red", 5).kinds
    alone = GramCol(backend, standardize="words").attribute(one)
    assert np.allclose(np.asarray(alone["red"]), [[1, 0.5]])


@pytest.fixture(scope="module")
def model() -> ToyModel:
    class FineOnly(ToyModel):
        def __init__(self) -> None:
            super().__init__()
            self._layers = self._layers[:1]

    return FineOnly()


@pytest.fixture(scope="module")
def trajectory(model: ToyModel) -> Trajectory:
    return model.sample("a red circle", seed=0)


def computed(model: ToyModel, trajectory: Trajectory, step: int, head: int) -> dict[str, Any]:
    """What the toy's fine layer computes in a head, written out again."""
    layer, latents = model._layers[0], trajectory.latents[step]
    places = latents.reshape(len(latents), -1).T
    at_time = np.sin(trajectory.timesteps[step] / 1000 * np.arange(1, WIDTH + 1))
    queries = places @ layer.query[head] + at_time
    scores = queries @ (trajectory.embeddings @ layer.key[head]).T / np.sqrt(WIDTH)
    own = (places @ layer.self_query[head]) @ (places @ layer.self_key[head]).T / np.sqrt(WIDTH)
    attention = softmax(scores, axis=1)
    output = attention @ (trajectory.embeddings @ layer.value[head])
    return {
        "scores": scores, "attention": attention, "output": output, "within": softmax(own, axis=1)
    }  # fmt: skip


@pytest.mark.parametrize("similarity", ["cosine", "product"])
def test_gramcol_by_hand(model: ToyModel, trajectory: Trajectory, similarity: Any) -> None:
    maps = GramCol(model, similarity=similarity).attribute(trajectory)
    tokens, places = len(trajectory.tokens), int(np.prod(trajectory.grid))
    total = np.zeros((tokens, places))
    for step in range(trajectory.steps):
        for head in range(HEADS):
            found = computed(model, trajectory, step, head)
            columns = np.zeros((tokens, places))
            for token in range(tokens):
                best = found["output"][np.argmax(found["scores"][:, token])]
                for place, output in enumerate(found["output"]):
                    scale = 1.0
                    if similarity == "cosine":
                        scale = np.linalg.norm(best) * np.linalg.norm(output)
                    columns[token, place] = output @ best / scale
            total += (columns - columns.mean(0)) / columns.std(0)
    wanted = total / trajectory.steps / HEADS
    red = trajectory.tokens.texts.index("red")
    # Columns come in float32, and their differences are divided by what may be small.
    assert np.allclose(np.asarray(maps["red"]).ravel(), wanted[red], rtol=1e-2, atol=1e-2)
    assert maps.signed


def test_goca_by_hand(model: ToyModel, trajectory: Trajectory) -> None:
    """With one layer its weight doesn't matter."""
    maps = GoCA(model).attribute(trajectory)
    equal = GoCA(model, layer_weighting="equal").attribute(trajectory)
    assert np.allclose(maps.data.values, equal.data.values)
    assert (maps.provenance.forward, equal.provenance.forward) == (9, 3)
    special = [p for k in ("start", "end", "pad") for p in trajectory.tokens.positions(k)]
    red = trajectory.tokens.texts.index("red")
    total: npt.NDArray[Any] = np.zeros(int(np.prod(trajectory.grid)))
    for step in range(trajectory.steps):
        heads = [computed(model, trajectory, step, head) for head in range(HEADS)]
        output = sum(one["output"] for one in heads)
        along = [np.maximum(0, (one["output"] * output).sum(1)) for one in heads]
        mixed = sum(a[:, None] * one["attention"] for a, one in zip(along, heads, strict=True))
        mixed = mixed / sum(along)[:, None]
        divisor = mixed[:, special].sum(1)
        quotient = mixed[:, red] / np.maximum(divisor, divisor.mean() / 1000)
        total += quotient / quotient.max()
    wanted = total / trajectory.steps
    # Attention is averaged in float32.
    assert np.allclose(np.asarray(maps["red"]).ravel(), wanted, rtol=1e-3, atol=1e-5)


def test_agreement_on_paper() -> None:
    """Two groups of two places each: self-attention within groups agrees wholly with features of
    the groups, an even one doesn't, and one across them is against them."""
    groups = np.kron(np.eye(2), np.ones((2, 2))).astype(np.float32)
    features = (2 * groups - 1).reshape(4, 2, 2)
    assert agreement((groups / 2).reshape(4, 2, 2), features) == pytest.approx(1)
    assert agreement(np.full((4, 2, 2), 0.25, np.float32), features) == 0
    assert agreement(((1 - groups) / 2).reshape(4, 2, 2), features) == 0


def test_a_layer_that_agrees_counts_more() -> None:
    """Of the toy's two layers each has its agreement as weight."""
    model = ToyModel()
    trajectory = model.sample("a red circle", seed=0)
    method = GoCA(model, relative_to=None, steps=(1,))
    query = AttentionQuery(keep=("layer",), measure="weighted-heads")
    layers = model.attention(trajectory, query, (1,)).means
    weights = method._agreements(trajectory, 1, layers)
    assert (weights >= 0).all()
    assert weights[0] != pytest.approx(weights[1], rel=0.05)
    red = trajectory.tokens.texts.index("red")
    each = [resize(m.values[red].astype(float), trajectory.grid) for m in layers]
    wanted = (weights[0] * each[0] + weights[1] * each[1]) / weights.sum()
    found = np.asarray(method.attribute(trajectory)["red"])
    assert np.allclose(found, wanted.clip(0), rtol=1e-4, atol=1e-6)


def test_conformance_of_the_options() -> None:
    check_attributor(lambda b: GramCol(b, similarity="product", standardize="words"))
    check_attributor(lambda b: GoCA(b, layer_weighting="equal", relative_to=None))


def test_what_they_refuse(model: ToyModel) -> None:
    with pytest.raises(MissingCapabilityError, match="gramcol needs attention_measures"):
        GramCol(ToyBackend())
    with pytest.raises(ValueError, match="similarity must be 'cosine' or 'product'"):
        GramCol(model, similarity="sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="standardize must be 'context' or 'words'"):
        GramCol(model, standardize="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="layer_weighting must be 'agreement' or 'equal'"):
        GoCA(model, layer_weighting="some")  # type: ignore[arg-type]

    class MoreSelf(ToyModel):
        def _attention(self, trajectory: Any, query: AttentionQuery, *rest: Any) -> AttentionMeans:
            found = super()._attention(trajectory, query, *rest)
            return AttentionMeans(found.means[:1]) if query.kind == "self" else found

    more = MoreSelf()
    with pytest.raises(ValueError, match=r"has 2 of the one and 1 of the other.*'equal'"):
        GoCA(more).attribute(more.sample("a red circle", seed=0))
