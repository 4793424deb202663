"""Methods against answers known on paper, on toy models in numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.toys import ToyBackend, toy_trajectory
from wordlight.attribution import (
    DAAM,
    Center,
    GuidanceNorm,
    InputXGradient,
    Occlusion,
    Random,
    ShuffledWord,
    Uniform,
)
from wordlight.attribution.question import Question
from wordlight.attribution.registry import UnknownMethodError, available, get
from wordlight.attribution.step import Inputs, prepare_step
from wordlight.attribution.words import PromptWords
from wordlight.backends.attention import AttentionMean, AttentionMeans
from wordlight.backends.backend import MissingCapabilityError

TRAJECTORY = toy_trajectory()


def push(backend: ToyBackend) -> np.ndarray:
    delta = TRAJECTORY.embeddings - TRAJECTORY.empty_embeddings
    g = np.einsum("cyxtd,td->cyx", backend.jacobian, delta)
    return np.asarray(g)


@pytest.mark.parametrize("method", [InputXGradient, Occlusion])
def test_linear_model(method: type[InputXGradient] | type[Occlusion]) -> None:
    """On ε = x + A·E, f_w = ⟨A_w·Δ_w, g/‖g‖⟩ and the words' maps sum to ‖g‖."""
    backend = ToyBackend()
    maps = method(backend).attribute(TRAJECTORY)
    g = push(backend)
    norm = np.linalg.norm(g, axis=0)
    assert np.allclose(maps.data.sum("word"), norm, rtol=1e-5)
    delta = (TRAJECTORY.embeddings - TRAJECTORY.empty_embeddings)[3]
    by_hand = np.einsum("cyxd,d,cyx->yx", backend.jacobian[..., 3, :], delta, g / norm)
    # Maps are stored in float32.
    assert np.allclose(np.asarray(maps["circle", 0]), by_hand, atol=1e-5)


def test_they_differ_where_the_model_bends() -> None:
    backend = ToyBackend(bend="saturating")
    slope = InputXGradient(backend).attribute(TRAJECTORY).data.values
    gone = Occlusion(backend).attribute(TRAJECTORY).data.values
    assert np.abs(slope - gone).max() > 0.1
    # tanh flattens the slope at E, so the slopes fall short of the whole push.
    assert np.abs(slope.sum(0)).mean() < np.abs(gone).sum(0).mean()


def test_step_weighting() -> None:
    backend = ToyBackend()
    plain = Occlusion(backend).attribute(TRAJECTORY).data.values
    equal = Occlusion(backend, step_weighting="equal").attribute(TRAJECTORY).data.values
    # This toy pushes alike at every step, so weighting only rescales.
    assert np.allclose(equal * np.linalg.norm(push(backend), axis=0).mean(), plain, atol=1e-4)
    with pytest.raises(ValueError, match="step_weighting"):
        Occlusion(backend, step_weighting="none")  # type: ignore[arg-type]


def test_guidance_norm_is_the_same_for_every_word() -> None:
    backend = ToyBackend()
    maps = GuidanceNorm(backend).attribute(TRAJECTORY)
    norm = np.linalg.norm(push(backend), axis=0)
    for word in maps.players:
        assert np.allclose(np.asarray(maps.at(word)), norm, rtol=1e-5)


def test_half_precision_keeps_weak_pushes() -> None:
    """A push of 1e-4 squared is 1e-8, which float16 rounds to zero."""

    class Half(ToyBackend):
        def _denoise(self, latents, timestep, conditioning):  # type: ignore[no-untyped-def]
            push = 1e-4 * conditioning.embeddings[:, :1, :1, None]
            return (0 * latents + push).astype(np.float16)

    trajectory = replace(
        TRAJECTORY,
        embeddings=np.ones_like(TRAJECTORY.embeddings),
        empty_embeddings=np.zeros_like(TRAJECTORY.embeddings),
    )
    norm = np.asarray(GuidanceNorm(Half()).attribute(trajectory)["red"])
    # Three channels of 1e-4, itself rounded to float16's 11 bits.
    assert np.allclose(norm, np.sqrt(3) * 1e-4, rtol=1e-3)


def test_all_words_kept_is_the_prompt_itself_in_half_precision() -> None:
    """In float16 0.1 - 3 and back is 0.0996, so the embeddings must not be gone to from E°."""

    class Half(ToyBackend):
        def asarray(self, array):  # type: ignore[no-untyped-def]
            return np.asarray(array, np.float16)

    rng = np.random.default_rng(1)
    trajectory = replace(
        TRAJECTORY,
        embeddings=0.1 * rng.standard_normal(TRAJECTORY.embeddings.shape),
        empty_embeddings=3 + rng.standard_normal(TRAJECTORY.embeddings.shape),
    )
    players = PromptWords.of(trajectory.tokens).players
    question = Question(trajectory, players, (0,), baseline=trajectory.empty_embeddings)
    backend = Half()
    step = prepare_step(question, Inputs.of(backend, question, "embeddings"), 0)
    kept = np.ones((1, len(trajectory.tokens), 1), np.float16)
    assert (step.values_with(kept)[0] == step.total).all()
    assert (step.values_with(0 * kept) == 0).all()
    # Between the two words count by how much of them is kept: the toy is linear.
    halfway = step.values_with(0.5 * kept)[0]
    assert np.allclose(halfway, step.total / 2, rtol=0.01, atol=0.01 * np.abs(step.total).max())


def test_costs_are_counted() -> None:
    backend = ToyBackend()
    players, steps = 10, 3
    spent = InputXGradient(backend).attribute(TRAJECTORY).provenance
    assert (spent.forward, spent.jvp, spent.vjp) == (2 * steps, players * steps, 0)
    assert spent.forward_equivalents == 2 * steps + 2 * players * steps
    assert Occlusion(backend).attribute(TRAJECTORY).provenance.forward == (2 + players) * steps
    assert Uniform(backend).attribute(TRAJECTORY).provenance.forward_equivalents == 0


def test_one_row_at_a_time() -> None:
    """The two ends of the target too, and the same answer."""

    class Watched(ToyBackend):
        most = 0

        def _denoise(self, latents, timestep, conditioning):  # type: ignore[no-untyped-def]
            self.most = max(self.most, len(latents))
            return super()._denoise(latents, timestep, conditioning)

    backend = Watched()
    alone = Occlusion(backend).attribute(TRAJECTORY, internal_batch_size=1)
    assert backend.most == 1
    together = Occlusion(backend).attribute(TRAJECTORY)
    assert backend.most == len(together.players)
    assert np.allclose(alone.data.values, together.data.values, atol=1e-6)
    assert alone.provenance.forward == together.provenance.forward


def test_phrases_as_players() -> None:
    backend = ToyBackend()
    one = Occlusion(backend).attribute(TRAJECTORY, words=["red circle"])
    assert "red circle" in [p.text for p in one.players]
    assert len(one) == 9
    merged = Occlusion(backend).attribute(TRAJECTORY)["red circle"]
    # The toy is linear, so a phrase taken as one equals the sum of its words.
    assert np.allclose(np.asarray(one["red circle"]), np.asarray(merged), atol=1e-5)
    with pytest.raises(KeyError, match="no map of its own"):
        one["red"]
    with pytest.raises(ValueError, match="overlaps"):
        Occlusion(backend).attribute(TRAJECTORY, words=["red circle", ("circle", 0)])
    with pytest.raises(KeyError, match="'dog' is not in the prompt"):
        Occlusion(backend).attribute(TRAJECTORY, words=["dog"])
    with pytest.raises(TypeError, match="list of words"):
        Occlusion(backend).attribute(TRAJECTORY, words="red")


def test_lists_and_baselines() -> None:
    backend = ToyBackend()
    assert len(Occlusion(backend).attribute([TRAJECTORY, TRAJECTORY])) == 2
    for wrong in (TRAJECTORY.prompt, [TRAJECTORY.prompt], 3):
        with pytest.raises(TypeError, match="asked about a trajectory"):
            Occlusion(backend).attribute(wrong)
    with pytest.raises(TypeError, match="layers must be a list"):
        DAAM(backend, layers="up_blocks")
    with pytest.raises(ValueError, match="without guidance"):
        Occlusion(backend).attribute(TRAJECTORY, baselines="negative")
    with pytest.raises(ValueError, match="'empty' or 'negative'"):
        Occlusion(backend).attribute(TRAJECTORY, baselines="zero")


def test_step_sets() -> None:
    trajectory = toy_trajectory(steps=20)
    assert trajectory.at_steps(4) == (2, 7, 12, 17)
    assert trajectory.at_steps(None) == tuple(range(20))
    assert trajectory.at_steps((3, 1)) == (3, 1)
    for bad in (0, 21, (20,), (), (1, 1)):
        with pytest.raises(ValueError, match="step"):
            trajectory.at_steps(bad)


def test_daam_by_hand() -> None:
    """Two grids: a fine one seen 3 times, a coarse constant one seen once."""
    fine = np.zeros((12, 4, 6), np.float32)
    fine[3, 1, 2] = 0.8
    coarse = np.full((12, 2, 3), 0.25, np.float32)
    backend = ToyBackend(
        attention=AttentionMeans((AttentionMean(fine, 3), AttentionMean(coarse, 1)))
    )
    maps = DAAM(backend).attribute(TRAJECTORY)
    wanted = np.full((4, 6), 0.25 / 4)
    wanted[1, 2] += 0.8 * 3 / 4
    # The fine maps are on the latent grid already, and upscaling keeps a constant.
    assert np.allclose(np.asarray(maps["circle", 0]), wanted, atol=1e-6)
    assert np.allclose(np.asarray(maps["red circle"]), (wanted + 0.25 / 4) / 2, atol=1e-6)


def test_daam_clamps_once_or_each_map() -> None:
    up, down = np.zeros((12, 2, 3), np.float32), np.full((12, 2, 3), 0.1, np.float32)
    up[3, 0, 0] = 1.0
    means = AttentionMeans(
        (AttentionMean(up, 1, layer="a", head=0), AttentionMean(down, 1, layer="b", head=0))
    )
    once = DAAM(ToyBackend(attention=means)).attribute(TRAJECTORY)
    each = DAAM(ToyBackend(attention=means), clamp="per-map").attribute(TRAJECTORY)
    # Upscaling the single peak undershoots; the other map's 0.1 hides that unless clamped before.
    assert float((each.data - once.data).max()) > 1e-3
    assert float((each.data - once.data).min()) >= -1e-7
    assert float(once.data.min()) >= 0
    backend = ToyBackend(attention=means)
    DAAM.original(backend).attribute(TRAJECTORY)
    assert backend.queries[0].without_layers == ("mid_block",)
    assert backend.queries[0].factors == (1, 2, 4, 16, 32)
    assert backend.queries[0].keep == ("layer", "head")


def test_controls() -> None:
    backend = ToyBackend()
    assert (Uniform(backend).attribute(TRAJECTORY).data == 1).all()
    bump = np.asarray(Center(backend, width=0.2).attribute(TRAJECTORY)["red"])
    # Pixel (1, 2) of 4 x 6 lies 1/8 and 1/12 of a side from the middle.
    by_hand = np.exp(-0.5 * ((1 / 8 / 0.2) ** 2 + (1 / 12 / 0.2) ** 2))
    assert bump[1, 2] == pytest.approx(by_hand, rel=1e-6)
    random = Random(backend).attribute(TRAJECTORY)
    again = Random(backend).attribute(TRAJECTORY)
    assert (random.data == again.data).all()
    assert (np.asarray(random["red"]) != np.asarray(random["blue"])).all()
    other = Random(backend, seed=1).attribute(TRAJECTORY)
    assert (np.asarray(random["red"]) != np.asarray(other["red"])).any()
    with pytest.raises(ValueError, match="in a comparison"):
        ShuffledWord(backend)


def test_a_missing_primitive_is_named() -> None:
    class NoJvp(ToyBackend):
        capabilities = frozenset({"denoise"})

    with pytest.raises(MissingCapabilityError, match="input-x-gradient needs denoise_jvp"):
        InputXGradient(NoJvp())


def test_registry() -> None:
    assert available()["daam"] is DAAM
    with pytest.raises(UnknownMethodError, match="did you mean daam"):
        get("dam")
    with pytest.raises(UnknownMethodError, match=r"no method 'DAAM'; did you mean daam\?"):
        get("DAAM")
    with pytest.raises(UnknownMethodError, match="there are"):
        get("zzzzzzz")
