"""Measures of attention, on paper and with plain loops."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import softmax

from wordlight.attribution.testing.model import ToyModel
from wordlight.backends.attention import AttentionQuery, OtherKeys
from wordlight.backends.measures import AttentionParts, Measure


def parts(heads: int = 2, places: int = 5, keys: int = 3) -> AttentionParts:
    rng = np.random.default_rng(0)
    return AttentionParts(
        rng.standard_normal((1, heads, places, keys)),
        rng.standard_normal((1, heads, keys, 4)),
        rng.standard_normal((heads, 4, 6)),
    )


def outputs(of: AttentionParts) -> npt.NDArray[Any]:
    """``(heads, places, width)``."""
    return np.asarray(softmax(of.scores[0], axis=-1) @ of.values[0])


def test_probabilities_and_scores() -> None:
    of = parts()
    assert np.allclose(of.measured("probabilities", "cross"), softmax(of.scores, axis=-1))
    assert np.array_equal(of.measured("scores", "cross"), of.scores)
    masked = AttentionParts(np.where(of.scores > 1, -np.inf, of.scores), of.values, of.projection)
    assert np.isfinite(masked.measured("scores", "cross")).all()


@pytest.mark.parametrize("measure", ["output-product", "output-cosine"])
def test_outputs_against_the_best_place_s(measure: Measure) -> None:
    of = parts()
    found = of.measured(measure, "cross")
    out = outputs(of)
    for head in range(2):
        for key in range(3):
            best = out[head, np.argmax(of.scores[0, head, :, key])]
            for place in range(5):
                own = out[head, place]
                wanted = own @ best
                if measure == "output-cosine":
                    wanted /= np.linalg.norm(own) * np.linalg.norm(best)
                assert found[0, head, place, key] == pytest.approx(wanted)


def test_outputs_against_the_keys_own_place() -> None:
    rng = np.random.default_rng(1)
    of = AttentionParts(
        rng.standard_normal((1, 2, 5, 5)), rng.standard_normal((1, 2, 5, 4)), np.ones((2, 4, 6))
    )
    out = outputs(of)
    found = of.measured("output-product", "self")
    assert np.allclose(found[0], np.einsum("hpd,hqd->hpq", out, out))
    assert np.allclose(np.diagonal(of.measured("output-cosine", "self")[0], 0, 1, 2), 1)


def test_heads_are_weighted_by_what_they_have_to_do_with_the_output() -> None:
    """Head 0 makes (3, 0), head 1 (1, 2): the output is (4, 2), along which head 0 has 12 and head
    1 has 8. A third head works against it and gets nothing."""
    values = np.array([[3.0, 0], [1, 2], [-1, -1]])[:, None, :]
    of = AttentionParts(np.zeros((1, 3, 1, 2)), np.repeat(values, 2, axis=1)[None], np.eye(2)[None])
    of = AttentionParts(of.scores, of.values, np.repeat(np.eye(2)[None], 3, axis=0))
    # The output of all three is (3, 1): 9, 5 and -4.
    found = of.measured("weighted-heads", "cross")[0, :, 0, 0]
    assert np.allclose(found, 0.5 * 3 * np.array([9, 5, 0]) / 14)
    # The mean over heads is the weighted mean of their probabilities, all 1/2 here.
    assert found.mean() == pytest.approx(0.5)
    nothing = AttentionParts(of.scores, 0 * of.values, of.projection)
    assert np.allclose(nothing.measured("weighted-heads", "cross"), 0.5)


def test_weighted_heads_with_plain_loops() -> None:
    of = parts()
    found = of.measured("weighted-heads", "cross")
    out, probabilities = outputs(of), softmax(of.scores[0], axis=-1)
    for place in range(5):
        each = [out[h, place] @ of.projection[h] for h in range(2)]
        along = np.array([max(0.0, one @ (each[0] + each[1])) for one in each])
        mixed = (along[:, None] * probabilities[:, place]).sum(0) / along.sum()
        assert np.allclose(found[0, :, place].mean(0), mixed)


@pytest.fixture(scope="module")
def model() -> ToyModel:
    return ToyModel()


@pytest.mark.parametrize("kind", ["cross", "self"])
@pytest.mark.parametrize("measure", ["scores", "output-product", "output-cosine", "weighted-heads"])
def test_the_toy_has_them(
    model: ToyModel, measure: Measure, kind: Literal["cross", "self"]
) -> None:
    trajectory = model.sample("a red circle", seed=0)
    query = AttentionQuery(kind=kind, measure=measure, layers=("fine",))
    (mean,) = model.attention(trajectory, query, (0, 2)).means
    keys = len(trajectory.tokens) if kind == "cross" else int(np.prod(trajectory.grid))
    assert mean.values.shape == (keys, *trajectory.grid)
    assert mean.count == 4
    if measure == "weighted-heads":
        assert np.allclose(mean.values.sum(0), 1, atol=1e-5)
    elif measure == "output-cosine":
        assert np.abs(mean.values).max() <= 1 + 1e-6


def test_the_prompts_own_keys_have_the_prompts_scores(model: ToyModel) -> None:
    trajectory = model.sample("a red circle", seed=0)
    query = AttentionQuery(measure="scores")
    places = [((k,), (k,)) for k in range(len(trajectory.tokens))]
    keys = OtherKeys.of(trajectory.embeddings, places, len(trajectory.tokens))
    own = model.attention(trajectory, query, (1,)).means
    asked = model.attention(trajectory, query, (1,), keys).means
    for one, other in zip(own, asked, strict=True):
        assert np.allclose(one.values, other.values, rtol=1e-5, atol=1e-5)


def test_what_is_refused(model: ToyModel) -> None:
    with pytest.raises(ValueError, match="measure must be one of 'probabilities', 'scores', "):
        AttentionQuery(measure="norms")  # type: ignore[arg-type]
    trajectory = model.sample("a red circle", seed=0)
    keys = OtherKeys.of(trajectory.embeddings[:1], [((0,), (0,))], len(trajectory.tokens))
    with pytest.raises(ValueError, match="other words have no output-cosine: they weren't att"):
        model.attention(trajectory, AttentionQuery(measure="output-cosine"), (0,), keys)
