"""Attention relative to other positions: answers on paper, and a plain implementation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import softmax

from tests.toys import ToyBackend, toy_tokens, toy_trajectory
from wordlight.attribution import DAAM, RelativeAttention, SelfAttentionRefined
from wordlight.attribution.methods.relative_to import RelativeTo, divide_attention
from wordlight.attribution.testing import check_attributor
from wordlight.attribution.testing.model import HEADS, WIDTH, ToyModel
from wordlight.backends.attention import AttentionMean, AttentionMeans, AttentionQuery
from wordlight.backends.trajectory import Trajectory

#: Maps are stored in float32; these are of order 1.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def two_words() -> tuple[npt.NDArray[Any], Any]:
    """``<start> red circle <end> <pad>`` over a row of two pixels."""
    maps = np.array([[[0.2, 0.4]], [[0.1, 0.1]], [[0.3, 0.1]], [[0.3, 0.3]], [[0.1, 0.1]]])
    return maps, toy_tokens("red circle", 5)


@pytest.mark.parametrize(
    ("relative_to", "red", "circle"),
    [
        # 0.1/0.2 and 0.1/0.4, then divided by the first; 0.3/0.2 and 0.1/0.4 likewise.
        ("start", [1, 1 / 2], [1, 1 / 6]),
        # Start, end and pad have 0.6 and 0.8.
        ("special", [1, 3 / 4], [1, 1 / 4]),
        # The words have 0.4 and 0.2; shares.
        ("words", [1 / 4, 1 / 2], [3 / 4, 1 / 2]),
        (None, [0.1, 0.1], [0.3, 0.1]),
    ],
)
def test_quotients_on_paper(
    relative_to: RelativeTo | None, red: list[float], circle: list[float]
) -> None:
    maps, tokens = two_words()
    found = divide_attention(maps, tokens, relative_to)
    assert np.allclose(found[1, 0], red, rtol=1e-12)
    assert np.allclose(found[2, 0], circle, rtol=1e-12)


def test_a_divisor_near_zero_is_held_off() -> None:
    """At a pixel without any attention to <start> the quotient stays finite: the divisor counts as
    a thousandth of its mean."""
    maps, tokens = two_words()
    maps[0] = [[0.0, 0.4]]
    found = divide_attention(maps, tokens, "start")
    # 0.1 / 0.0002 and 0.1 / 0.4.
    assert np.allclose(found[1, 0], [1, 0.0002 / 0.4], rtol=1e-12)
    nothing = divide_attention(np.zeros_like(maps), tokens, "start")
    assert not nothing.any()


def test_daam_divides_the_averaged_maps() -> None:
    trajectory = toy_trajectory()
    rng = np.random.default_rng(0)
    values = rng.uniform(0.1, 1, (len(trajectory.tokens), *trajectory.grid)).astype(np.float32)
    backend = ToyBackend(attention=AttentionMeans((AttentionMean(values, 6),)))
    maps = DAAM(backend, relative_to="start").attribute(trajectory)
    red, blue = trajectory.tokens.texts.index("red"), trajectory.tokens.texts.index("blue")
    for word, token in (("red", red), ("blue", blue)):
        quotient = values[token] / values[0]
        assert np.allclose(np.asarray(maps[word]), quotient / quotient.max(), **CLOSE)
    # A phrase has the mean of its words' quotients.
    circle = np.asarray(maps["circle", 0])
    both = np.asarray(maps["red circle"])
    assert np.allclose(both, (np.asarray(maps["red"]) + circle) / 2, **CLOSE)
    assert maps.provenance.settings["relative_to"] == "start"
    plain = DAAM(backend).attribute(trajectory)
    assert np.allclose(np.asarray(plain["red"]), values[red], **CLOSE)


@pytest.fixture(scope="module")
def model() -> ToyModel:
    return ToyModel()


@pytest.fixture(scope="module")
def trajectory(model: ToyModel) -> Trajectory:
    return model.sample("a red circle and a blue square", seed=0)


def by_hand(model: ToyModel, trajectory: Trajectory, words: list[int]) -> npt.NDArray[Any]:
    """The maps of some tokens, from the toy's fine layer alone, written out again."""
    layer = model._layers[0]
    total = np.zeros((len(words), *trajectory.grid))
    for latents, time in zip(trajectory.latents, trajectory.timesteps, strict=True):
        places = latents.reshape(len(latents), -1).T
        at_time = np.sin(time / 1000 * np.arange(1, WIDTH + 1))
        cross = np.zeros((len(places), len(trajectory.tokens)))
        within = np.zeros((len(places), len(places)))
        for head in range(HEADS):
            queries = places @ layer.query[head] + at_time
            keys = trajectory.embeddings @ layer.key[head]
            cross += softmax(queries @ keys.T / np.sqrt(WIDTH), axis=-1) / HEADS
            own = (places @ layer.self_query[head]) @ (places @ layer.self_key[head]).T
            within += softmax(own / np.sqrt(WIDTH), axis=-1) / HEADS
        for row, token in enumerate(words):
            divisor = np.maximum(cross[:, 0], cross[:, 0].mean() / 1000)
            quotient = cross[:, token] / divisor
            total[row] += (within @ (quotient / quotient.max())).reshape(trajectory.grid)
    return total / len(trajectory.timesteps)


def test_the_combination_by_hand(trajectory: Trajectory) -> None:
    """The quotient of each step, spread by that step's self-attention."""

    class FineOnly(ToyModel):
        def __init__(self) -> None:
            super().__init__()
            self._layers = self._layers[:1]

    model = FineOnly()
    maps = RelativeAttention(model, relative_to="start").attribute(trajectory)
    found = np.stack([np.asarray(maps["red"]), np.asarray(maps["square"])])
    texts = trajectory.tokens.texts
    wanted = by_hand(model, trajectory, [texts.index("red"), texts.index("square")])
    # Attention is averaged in float32.
    assert np.allclose(found, wanted, rtol=1e-4, atol=1e-6)
    same = SelfAttentionRefined(model, relative_to="start").attribute(trajectory)
    assert np.array_equal(same.data.values, maps.data.values)
    without = RelativeAttention(model, relative_to=None).attribute(trajectory)
    plain = SelfAttentionRefined(model).attribute(trajectory)
    assert np.array_equal(without.data.values, plain.data.values)
    assert np.abs(plain.data.values - maps.data.values).max() > 0.1


@pytest.mark.parametrize("relative_to", ["start", "special", "words"])
def test_conformance_of_the_option(relative_to: RelativeTo) -> None:
    check_attributor(lambda b: DAAM(b, relative_to=relative_to, keep=("layer",)))
    check_attributor(lambda b: SelfAttentionRefined(b, relative_to=relative_to))


def test_heads_weighted_by_their_groups(model: ToyModel, trajectory: Trajectory) -> None:
    """The weights are the second eigenvalues of the heads' matrices."""
    maps = SelfAttentionRefined(
        model, steps=(0,), head_weighting="second-eigenvalue", relative_to=None
    ).attribute(trajectory)
    query = AttentionQuery(kind="self", layers=("fine",), keep=("head",))
    rows = [
        m.values.reshape(len(m.values), -1).T.astype(float)
        for m in model.attention(trajectory, query, (0,)).means
    ]
    weights = [np.sort(np.abs(np.linalg.eigvals(one)))[-2] for one in rows]
    assert abs(weights[0] - weights[1]) > 1e-3
    mixed = np.average(rows, axis=0, weights=weights)
    plain = DAAM(model, steps=(0,)).attribute(trajectory)
    wanted = mixed @ np.asarray(plain["red"]).ravel()
    # Attention is averaged in float32.
    assert np.allclose(np.asarray(maps["red"]).ravel(), wanted, rtol=1e-3, atol=1e-6)


def test_what_it_refuses(model: ToyModel) -> None:
    with pytest.raises(ValueError, match="relative_to must be 'start', 'special' or 'words', not"):
        DAAM(model, relative_to="pad")  # type: ignore[arg-type]
    maps, tokens = two_words()
    headless = toy_tokens("red circle", 5)
    object.__setattr__(headless, "kinds", ("text", *tokens.kinds[1:]))
    with pytest.raises(ValueError, match="has none: its positions are text, end, pad"):
        divide_attention(maps, headless, "start")
