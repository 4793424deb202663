"""The attention family, on a toy whose queries, keys and values are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.toys import CHANNELS, ToyBackend, toy_tokens, toy_trajectory
from wordlight.attribution import (
    DAAM,
    AttentionXGradient,
    AttributionMaps,
    HeadSelection,
    OpenVocabulary,
    SelfAttentionRefined,
)
from wordlight.attribution.maps import WordMap
from wordlight.attribution.methods.attention_average import average_on_grid
from wordlight.attribution.methods.head_selection import rank_heads, relevance
from wordlight.attribution.methods.self_attention import mean_of_heads
from wordlight.attribution.methods.self_attention_refined import propagate
from wordlight.attribution.resize import resize
from wordlight.attribution.targets import DecodedChannel, PredictionNorm, Region
from wordlight.attribution.testing import check_attributor
from wordlight.attribution.testing.model import HEADS, WIDTH, ToyModel
from wordlight.attribution.words import PromptWords
from wordlight.backends.attention import AttentionMean, AttentionMeans, AttentionQuery
from wordlight.backends.backend import Conditioning, MissingCapabilityError
from wordlight.backends.trajectory import Trajectory

TRAJECTORY = toy_trajectory()
GRID = TRAJECTORY.grid
PLACES = GRID[0] * GRID[1]
TOKENS = len(TRAJECTORY.tokens)
#: Maps are stored in float32; the toy's are of order 1.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


class AttentionToy(ToyBackend):
    """One cross-attention layer of two heads on the latent grid: ε = x + Σ_heads A_h(E)·V_h.

    A is the softmax over tokens of queries times embeddings, the queries other ones at each step;
    ``within`` is the self-attention, by grid, each ``(places, places)`` with rows that sum to one.
    """

    HEADS = 2
    capabilities = frozenset(
        {
            *ToyBackend.capabilities,
            "encode",
            "self_attention",
            "attention_keys",
            "attention_vjp",
        }
    )

    def __init__(self, within: dict[tuple[int, int], npt.NDArray[Any]] | None = None) -> None:
        super().__init__()
        rng = np.random.default_rng(3)
        self.queries_of_heads = rng.standard_normal((self.HEADS, *GRID, 5))
        self.values_of_heads = rng.standard_normal((self.HEADS, TOKENS, CHANNELS))
        self.words = rng.standard_normal((200, 5))
        self.within = within or {}
        self.asked: list[tuple[AttentionQuery, tuple[int, ...]]] = []
        self.encoded: list[str] = []

    def scores(self, timestep: float, embeddings: Any) -> npt.NDArray[Any]:
        """``(heads, tokens, y, x)``."""
        queries = self.queries_of_heads * (1 + timestep / 1000)
        return np.einsum("hyxd,td->htyx", queries, embeddings)

    def probabilities(self, timestep: float, embeddings: Any, keys: Any = None) -> Any:
        scores = np.exp(self.scores(timestep, embeddings))
        if keys is None:
            return scores / scores.sum(1, keepdims=True)
        others = np.exp(self.scores(timestep, keys.embeddings))
        # What stays of the prompt, and the word's own tokens.
        beside = np.einsum("htyx,tk->hkyx", scores, 1 - keys.displaced)
        return others / (beside + np.einsum("hjyx,jk->hkyx", others, keys.together))

    def predict(self, latents: Any, probabilities: Any) -> Any:
        return latents + np.einsum("htyx,htc->cyx", probabilities, self.values_of_heads)

    def _denoise(self, latents: Any, timestep: float, conditioning: Conditioning) -> Any:
        rows = zip(latents, conditioning.embeddings, strict=True)
        return np.stack([self.predict(x, self.probabilities(timestep, e)) for x, e in rows])

    def _attention(
        self,
        trajectory: Trajectory,
        query: AttentionQuery,
        steps: tuple[int, ...],
        keys: Any = None,
    ) -> AttentionMeans:
        if "step" in query.keep:
            alone = replace(query, keep=tuple(axis for axis in query.keep if axis != "step"))
            return AttentionMeans(
                tuple(
                    replace(mean, step=step)
                    for step in steps
                    for mean in self._attention(trajectory, alone, (step,), keys).means
                )
            )
        self.asked.append((query, steps))
        if query.kind == "self":
            return AttentionMeans(
                tuple(
                    # A map of each place as key: the transpose of rows over keys.
                    AttentionMean(s.T.reshape(len(s), *grid).astype(np.float32), len(steps))
                    for grid, s in self.within.items()
                    if query.wants_grid(grid, trajectory.grid)
                )
            )
        maps = np.mean(
            [
                self.probabilities(trajectory.timesteps[s], trajectory.embeddings, keys)
                for s in steps
            ],
            axis=0,
        ).astype(np.float32)
        if "head" in query.keep:
            return AttentionMeans(
                tuple(
                    AttentionMean(own, len(steps), layer="only", head=h)
                    for h, own in enumerate(maps)
                )
            )
        return AttentionMeans((AttentionMean(maps.mean(0), self.HEADS * len(steps)),))

    def _attention_vjp(
        self,
        latents: Any,
        timestep: float,
        conditioning: Conditioning,
        cotangent: Any,
        query: AttentionQuery,
    ) -> AttentionMeans:
        probabilities = self.probabilities(timestep, conditioning.embeddings[0])
        slopes = np.einsum("htc,cyx->htyx", self.values_of_heads, cotangent[0])
        kept = np.maximum(probabilities * slopes, 0).mean(0)
        return AttentionMeans((AttentionMean(kept.astype(np.float32), self.HEADS),))

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """A word's embedding depends on the word and on where it stands."""
        self.encoded += prompts
        return Conditioning(np.stack([self._encode_one(prompt) for prompt in prompts]))

    def _encode_one(self, prompt: str) -> npt.NDArray[Any]:
        numbers = [
            (sum(map(ord, text)) + place) % 200
            for place, text in enumerate(self.tokenize(prompt).texts)
        ]
        return np.asarray(self.words[numbers])

    def encoding(self, prompt: str, position: int) -> npt.NDArray[Any]:
        return self._encode_one(prompt)[position]


def daam(backend: AttentionToy) -> npt.NDArray[Any]:
    return np.asarray(DAAM(backend).attribute(TRAJECTORY).data)


def test_averaging_weighs_by_counts_and_takes_any_grid() -> None:
    fine = np.zeros((1, *GRID), np.float32)
    fine[0, 1, 2] = 1.0
    coarse = np.full((1, 2, 3), 0.5, np.float32)
    means = AttentionMeans((AttentionMean(fine, 3), AttentionMean(coarse, 1)))
    averaged, labels = average_on_grid(means, GRID)
    assert labels == {}
    # Bicubic weights sum to one, so a constant stays itself on another grid.
    assert np.allclose(averaged, (3 * fine + 0.5) / 4, rtol=1e-12)


# Self-attention refined


def test_identity_self_attention_leaves_daam() -> None:
    backend = AttentionToy({GRID: np.eye(PLACES)})
    for power in (1, 3):
        maps = SelfAttentionRefined(backend, power=power).attribute(TRAJECTORY)
        assert np.allclose(maps.data, daam(backend), **CLOSE)


def test_uniform_self_attention_leaves_the_mean() -> None:
    backend = AttentionToy({GRID: np.full((PLACES, PLACES), 1 / PLACES)})
    maps = SelfAttentionRefined(backend).attribute(TRAJECTORY).data.values
    means = daam(backend).mean((1, 2), keepdims=True)
    assert np.allclose(maps, np.broadcast_to(means, maps.shape), **CLOSE)


def test_every_place_gets_what_the_places_have_that_it_attends_to() -> None:
    """Place 0 attends to place 5 alone, all others to themselves; and again with power 2."""
    s = np.eye(PLACES)
    s[0] = np.eye(PLACES)[5]
    s[5] = np.eye(PLACES)[7]
    backend = AttentionToy({GRID: s})
    plain = daam(backend).reshape(-1, PLACES)
    once = SelfAttentionRefined(backend).attribute(TRAJECTORY).data.values.reshape(-1, PLACES)
    twice = SelfAttentionRefined(backend, power=2).attribute(TRAJECTORY).data.values
    twice = twice.reshape(-1, PLACES)
    assert np.allclose(once[:, 0], plain[:, 5], **CLOSE)
    assert np.allclose(once[:, 5], plain[:, 7], **CLOSE)
    assert np.allclose(twice[:, 0], plain[:, 7], **CLOSE)
    assert np.allclose(twice[:, 1:5], plain[:, 1:5], **CLOSE)


def test_rows_are_made_to_sum_to_one() -> None:
    rng = np.random.default_rng(0)
    s = rng.random((6, 6))
    maps = rng.random((2, 2, 3))
    by_hand = (s / s.sum(1, keepdims=True)) @ maps.reshape(2, 6).T
    rows = mean_of_heads([AttentionMean(s.T.reshape(6, 2, 3), 1)], "equal")
    assert np.allclose(propagate(rows, maps, 1).reshape(2, 6).T, by_hand)


def test_the_finest_grid_or_the_chosen_ones() -> None:
    uniform = np.full((6, 6), 1 / 6)
    backend = AttentionToy({(2, 3): uniform, GRID: np.eye(PLACES)})
    assert np.allclose(
        SelfAttentionRefined(backend).attribute(TRAJECTORY).data, daam(backend), **CLOSE
    )
    coarse = SelfAttentionRefined(backend, factors=(2,)).attribute(TRAJECTORY).data.values
    shrunk = resize(daam(backend).astype(float), (2, 3)).mean((1, 2), keepdims=True)
    assert np.allclose(coarse, np.broadcast_to(shrunk, coarse.shape), **CLOSE)
    both = SelfAttentionRefined(backend, factors=(1, 2)).attribute(TRAJECTORY).data.values
    assert np.allclose(both, (coarse + daam(backend)) / 2, **CLOSE)


def test_steps_are_refined_one_by_one() -> None:
    backend = AttentionToy({GRID: np.eye(PLACES)})
    maps = SelfAttentionRefined(backend, steps=(0, 2)).attribute(TRAJECTORY)
    assert sorted(steps for _, steps in backend.asked) == [(0,), (0,), (2,), (2,)]
    assert maps.provenance.forward == 4
    assert not maps.signed
    assert maps.merge == "mean"


def test_what_self_attention_refined_refuses() -> None:
    with pytest.raises(ValueError, match="power must be 1 or more, not 0"):
        SelfAttentionRefined(AttentionToy(), power=0)
    with pytest.raises(MissingCapabilityError, match="self_attention"):
        SelfAttentionRefined(ToyBackend())


# Head selection


def test_relevance_by_hand() -> None:
    # Attention-weighted mean of (0, 0, 0, 1) is 1, its mean 1/4.
    assert relevance(np.array([[0.0, 0.0], [0.0, 1.0]])) == pytest.approx(0.75)
    assert relevance(np.array([[0.0, 0.0], [0.0, 0.1]])) == pytest.approx(0.075)
    assert relevance(np.full((2, 2), 0.3)) == pytest.approx(0, abs=1e-15)
    assert relevance(np.zeros((2, 2))) == 0


def peaks() -> AttentionMeans:
    """Four heads on two grids. "red" (token 2) stands out in head 1 of the fine layer, "circle"
    (token 3) in head 0 of the coarse one; the others see constants."""
    fine = np.full((2, TOKENS, *GRID), 0.2, np.float32)
    coarse = np.full((2, TOKENS, 2, 3), 0.1, np.float32)
    fine[1, 2, 0, 0] = 0.9
    coarse[0, 3, 1, 1] = 0.8
    return AttentionMeans(
        tuple(
            AttentionMean(maps[head], 3, layer=layer, head=head)
            for layer, maps in (("fine", fine), ("coarse", coarse))
            for head in (0, 1)
        )
    )


def test_each_word_keeps_its_own_heads() -> None:
    backend = ToyBackend(attention=peaks())
    maps = HeadSelection(backend, share=0.25).attribute(TRAJECTORY)
    assert backend.queries[-1].keep == ("layer", "head")
    means = peaks().means
    assert np.allclose(np.asarray(maps["red"]), means[1].values[2], **CLOSE)
    by_hand = resize(means[2].values[3].astype(float), GRID).clip(0)
    assert np.allclose(np.asarray(maps["circle", 0]), by_hand, **CLOSE)
    # Where no head stands out the first is kept.
    assert np.allclose(np.asarray(maps["blue"]), 0.2, **CLOSE)
    # Even the smallest share keeps one head.
    smallest = HeadSelection(backend, share=0.01).attribute(TRAJECTORY)
    assert np.allclose(smallest.data, maps.data)


def test_all_heads_are_daam() -> None:
    backend = ToyBackend(attention=peaks())
    every = HeadSelection(backend, share=1.0).attribute(TRAJECTORY)
    assert np.allclose(every.data, DAAM(backend).attribute(TRAJECTORY).data, **CLOSE)


def test_fixed_heads() -> None:
    backend = ToyBackend(attention=peaks())
    maps = HeadSelection(backend, heads=[("coarse", 0), ("fine", 1)]).attribute(TRAJECTORY)
    assert backend.queries[-1].layers == ("coarse", "fine")
    means = peaks().means
    by_hand = (resize(means[2].values.astype(float), GRID) + means[1].values) / 2
    assert np.allclose(np.asarray(maps["red"]), by_hand[2], **CLOSE)
    assert np.allclose(np.asarray(maps["circle", 0]), by_hand[3], **CLOSE)
    again = HeadSelection(backend).with_options(heads=[["coarse", 0], ["fine", 1]])
    assert (
        again.settings()
        == HeadSelection(backend, heads=maps.provenance.settings["heads"]).settings()
    )
    with pytest.raises(ValueError, match=r"no head \('coarse', 7\).*\('coarse', 1\)"):
        HeadSelection(backend, heads=[("coarse", 7)]).attribute(TRAJECTORY)


def test_heads_are_ranked_by_how_they_find_masks() -> None:
    backend = ToyBackend(attention=peaks())
    mask = np.zeros(TRAJECTORY.image.shape[:2], bool)
    mask[:4, :4] = True

    def share_inside(word_map: WordMap, inside: npt.NDArray[np.bool_]) -> float:
        values = word_map.resized().clip(0)
        return float(values[inside].sum() / values.sum())

    ranked = rank_heads(backend, [(TRAJECTORY, {"red": mask})], share_inside)
    assert next(iter(ranked)) == ("fine", 1)
    assert list(ranked)[1:] == [("fine", 0), ("coarse", 0), ("coarse", 1)]
    # A constant map holds the mask's share of the pixels, 1 in 24.
    assert ranked["fine", 0] == pytest.approx(1 / 24, rel=1e-4)
    with pytest.raises(ValueError, match="no word with a mask"):
        rank_heads(backend, [(TRAJECTORY, {})], share_inside)
    with pytest.raises(KeyError, match="not in the prompt"):
        rank_heads(backend, [(TRAJECTORY, {"dog": mask})], share_inside)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, "share must be above 0"),
        ({"share": 1.5}, "share must be above 0"),
        ({"heads": []}, "at least one"),
        ({"heads": [("a", 0), ("a", 0)]}, "none twice"),
    ],
)
def test_what_head_selection_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HeadSelection(ToyBackend(), **options)


# Attention x gradient


def by_differences(
    backend: AttentionToy, step: int, strength: Any, small: float = 1e-6
) -> npt.NDArray[Any]:
    """ReLU(A ⊙ ∂S/∂A) averaged over heads, with ∂S/∂A by central differences of ``strength``,
    a function of ε(E)."""
    time = TRAJECTORY.timesteps[step]
    latents = TRAJECTORY.latents[step]
    probabilities = backend.probabilities(time, TRAJECTORY.embeddings)
    found = np.zeros_like(probabilities)
    for place in np.ndindex(*probabilities.shape):
        moved = np.zeros_like(probabilities)
        moved[place] = small
        up, down = (backend.predict(latents, probabilities + s * moved) for s in (1, -1))
        found[place] = (strength(up) - strength(down)) / (2 * small)
    return np.maximum(probabilities * found, 0).mean(0)


def empty_prediction(backend: AttentionToy, step: int) -> npt.NDArray[Any]:
    time = TRAJECTORY.timesteps[step]
    return np.asarray(
        backend.predict(
            TRAJECTORY.latents[step], backend.probabilities(time, TRAJECTORY.empty_embeddings)
        )
    )


def test_attention_x_gradient_by_differences() -> None:
    backend = AttentionToy()
    maps = AttentionXGradient(backend, steps=(1,)).attribute(TRAJECTORY)
    empty = empty_prediction(backend, 1)
    wanted = by_differences(backend, 1, lambda full: 0.5 * np.square(full - empty).sum())
    # Differences of 1e-6 in double precision leave about 1e-9.
    assert np.allclose(np.asarray(maps["red"]), wanted[2], **CLOSE)
    assert np.allclose(np.asarray(maps["<pad>"]), wanted[9:].mean(0), **CLOSE)
    assert wanted.max() > 0.1
    spent = maps.provenance
    assert (spent.forward, spent.jvp, spent.vjp) == (2, 0, 1)
    assert spent.settings["target"] == "guidance"


def test_a_regions_target() -> None:
    backend = AttentionToy()
    mask = np.zeros(GRID)
    mask[1:3, 2:4] = 1
    maps = AttentionXGradient(backend, steps=(0,)).attribute(TRAJECTORY, target=Region(mask))
    empty = empty_prediction(backend, 0)
    full = backend.predict(
        TRAJECTORY.latents[0],
        backend.probabilities(TRAJECTORY.timesteps[0], TRAJECTORY.embeddings),
    )
    direction = (full - empty) / np.linalg.norm(full - empty, axis=0)
    wanted = by_differences(backend, 0, lambda e: (mask * (e - empty) * direction).sum())
    assert np.allclose(np.asarray(maps["red"]), wanted[2], **CLOSE)
    # Attention acts at its own place in this toy: none outside the region counts.
    assert (np.asarray(maps["red"])[mask == 0] == 0).all()
    half = Region(mask, of=Region(np.full(GRID, 0.5)))
    twice = AttentionXGradient(backend, steps=(0,)).attribute(TRAJECTORY, target=half)
    assert np.allclose(2 * twice.data, maps.data, **CLOSE)


def test_steps_of_attention_x_gradient_are_weighed() -> None:
    backend = AttentionToy()
    one, other = (
        AttentionXGradient(backend, steps=(s,)).attribute(TRAJECTORY).data.values for s in (0, 2)
    )
    both = AttentionXGradient(backend, steps=(0, 2)).attribute(TRAJECTORY).data.values
    assert np.allclose(both, (one + other) / 2, **CLOSE)
    equal = AttentionXGradient(backend, steps=(0, 2), step_weighting="equal")
    sizes = [
        np.linalg.norm(
            backend.predict(
                TRAJECTORY.latents[s],
                backend.probabilities(TRAJECTORY.timesteps[s], TRAJECTORY.embeddings),
            )
            - empty_prediction(backend, s),
            axis=0,
        ).mean()
        for s in (0, 2)
    ]
    by_hand = (one / sizes[0] + other / sizes[1]) / 2
    assert np.allclose(equal.attribute(TRAJECTORY).data, by_hand, **CLOSE)


def test_other_targets_are_refused_by_name() -> None:
    class Decoding(AttentionToy):
        capabilities = frozenset({*AttentionToy.capabilities, "decode"})

    method = AttentionXGradient(Decoding())
    for target, name in (
        (PredictionNorm(), "not prediction-norm"),
        (DecodedChannel("red"), "not decoded-channel"),
        (Region(np.ones(GRID), of=PredictionNorm()), "not prediction-norm in a region"),
    ):
        with pytest.raises(ValueError, match=name):
            method.attribute(TRAJECTORY, target=target)
    with pytest.raises(ValueError, match="step_weighting"):
        AttentionXGradient(Decoding(), step_weighting="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no convergence delta"):
        method.attribute(TRAJECTORY, return_convergence_delta=True)


# Open vocabulary


def test_keys_of_the_prompt_give_daam() -> None:
    """With the prompt itself as every word's text, each token keeps its embedding."""
    backend = AttentionToy()
    trajectory = replace(TRAJECTORY, embeddings=backend.encode([TRAJECTORY.prompt]).embeddings[0])
    wanted = DAAM(backend).attribute(trajectory)
    whole = OpenVocabulary(backend, context="alone").attribute(trajectory, [slice(0, 30)])
    assert np.allclose(
        np.asarray(whole[0:30]), np.asarray(wanted["a red circle and a blue circle"]), **CLOSE
    )
    assert np.abs(np.asarray(whole[0:30])).max() > 0.01


def test_specials_have_daams_maps() -> None:
    backend = AttentionToy()
    maps = OpenVocabulary(backend).attribute(TRAJECTORY)
    wanted = DAAM(backend).attribute(TRAJECTORY)
    assert [p.text for p in maps.players] == [p.text for p in wanted.players]
    for special in ("<start>", "<end>", "<pad>"):
        assert np.allclose(np.asarray(maps[special]), np.asarray(wanted[special]), **CLOSE)
    assert not np.allclose(np.asarray(maps["red"]), np.asarray(wanted["red"]), atol=1e-3)


def shares_by_hand(
    backend: AttentionToy, keys: list[npt.NDArray[Any]], instead: Sequence[int] = ()
) -> npt.NDArray[Any]:
    """What a word's tokens get where they stand in the prompt, in place of some of its tokens or
    beside all: ``(tokens of the word, y, x)``."""
    staying = [token for token in range(TOKENS) if token not in instead]
    maps = []
    for time in TRAJECTORY.timesteps:
        own = np.exp(backend.scores(time, TRAJECTORY.embeddings[staying])).sum(1)
        new = np.exp(backend.scores(time, np.stack(keys)))
        maps.append((new / (own + new.sum(1))[:, None]).mean(0))
    return np.asarray(np.mean(maps, axis=0))


def test_words_that_keep_their_place_have_daams_maps() -> None:
    backend = AttentionToy()
    maps = OpenVocabulary(backend, context="prompt").attribute(TRAJECTORY, ["dog", "red circle"])
    wanted = DAAM(backend).attribute(TRAJECTORY, ["red circle"])
    # Nothing of the prompt is encoded anew.
    assert backend.encoded == ["a dog"]
    for place in ("red circle", "blue", "<start>", "<pad>"):
        assert np.allclose(np.asarray(maps[place]), np.asarray(wanted[place]), **CLOSE)
    assert np.asarray(maps["dog"]).std() > 0


def test_raw_scores_are_queries_times_keys() -> None:
    model = ToyModel()
    trajectory = model.sample("a red circle", seed=0)
    method = OpenVocabulary(model, scores="raw", layers=["fine"], context="alone", steps=(1,))
    maps = method.attribute(trajectory, ["dog"])
    layer, latents = model._layers[0], trajectory.latents[1]
    at_time = np.sin(trajectory.timesteps[1] / 1000 * np.arange(1, WIDTH + 1))
    dog = model.encode(["dog"]).embeddings[0, 1]
    scores = [
        (latents.reshape(len(latents), -1).T @ layer.query[head] + at_time)
        @ (dog @ layer.key[head])
        / np.sqrt(WIDTH)
        for head in range(HEADS)
    ]
    wanted = np.mean(scores, axis=0)
    # Scores are averaged in float32.
    assert np.allclose(np.asarray(maps["dog"]).ravel(), wanted, rtol=1e-4, atol=1e-4)
    assert wanted.max() > 1
    assert maps.signed
    check_attributor(lambda b: OpenVocabulary(b, scores="raw", context="prompt"))


def test_the_models_own_template() -> None:
    """CLIP's where nothing else is known; the embedded model's own, whose encoder reads scenes."""
    model = ToyModel()
    trajectory = model.sample("a red circle", seed=0)
    own = OpenVocabulary(model, context="model").attribute(trajectory, ["dog"])
    photo = OpenVocabulary(model, context="a photo of a {word}").attribute(trajectory, ["dog"])
    assert (np.asarray(own["dog"]) == np.asarray(photo["dog"])).all()
    model.model_id = "scenes"
    own = OpenVocabulary(model, context="model").attribute(trajectory, ["dog"])
    scene = "a {word} on a white background"
    wanted = OpenVocabulary(model, context=scene).attribute(trajectory, ["dog"])
    assert (np.asarray(own["dog"]) == np.asarray(wanted["dog"])).all()


def test_any_word_in_any_context() -> None:
    backend = AttentionToy()
    alone = OpenVocabulary(backend, context="alone").attribute(
        TRAJECTORY, ["dog", "red", "big  Car"]
    )
    (dog,) = shares_by_hand(backend, [backend.encoding("dog", 1)])
    assert np.allclose(np.asarray(alone["dog"]), dog, **CLOSE)
    # A word of the prompt stands in its own place, which is the third.
    (red,) = shares_by_hand(backend, [backend.encoding("red", 1)], [2])
    assert np.allclose(np.asarray(alone["red"]), red, **CLOSE)
    # A word of several tokens stands there whole, and has their mean.
    car = shares_by_hand(backend, [backend.encoding("big Car", place) for place in (1, 2)])
    assert np.allclose(np.asarray(alone["big car"]), np.mean(car, 0), **CLOSE)
    assert [w.text for w in alone.words][-2:] == ["dog", "big Car"]
    assert alone.provenance.forward == 3
    default = OpenVocabulary(backend).attribute(TRAJECTORY, ["dog"])
    (dog,) = shares_by_hand(backend, [backend.encoding("a dog", 2)])
    assert np.allclose(np.asarray(default["dog"]), dog, **CLOSE)
    appended = OpenVocabulary(backend, context="appended").attribute(TRAJECTORY, ["dog"])
    assert f"{TRAJECTORY.prompt} dog" in backend.encoded
    (dog,) = shares_by_hand(backend, [backend.encoding(f"{TRAJECTORY.prompt} dog", 8)])
    assert np.allclose(np.asarray(appended["dog"]), dog, **CLOSE)
    photo = OpenVocabulary(backend, context="a photo of a {word} here").attribute(
        TRAJECTORY, ["dog"]
    )
    (dog,) = shares_by_hand(backend, [backend.encoding("a photo of a dog here", 5)])
    assert np.allclose(np.asarray(photo["dog"]), dog, **CLOSE)


def test_few_rows_at_once_change_nothing() -> None:
    backend = AttentionToy()
    plain = OpenVocabulary(backend).attribute(TRAJECTORY, ["dog"])
    split = OpenVocabulary(backend).attribute(TRAJECTORY, ["dog"], internal_batch_size=2)
    assert np.array_equal(plain.data, split.data)


def test_words_that_are_not_in_the_prompt_are_held_and_kept(tmp_path: Path) -> None:
    maps = OpenVocabulary(AttentionToy()).attribute(TRAJECTORY, ["dog", "red circle", "red car"])
    assert [w.text for w in maps.outside] == ["dog", "red car"]
    assert maps["DOG"].word.tokens == ()
    assert np.array_equal(np.asarray(maps["dog", 0]), np.asarray(maps["dog"]))
    assert maps["dog"].mask(0.4).shape == TRAJECTORY.image.shape[:2]
    maps.save(tmp_path / "maps.safetensors")
    loaded = AttributionMaps.load(tmp_path / "maps.safetensors")
    assert loaded.players == maps.players
    assert np.array_equal(np.asarray(loaded["red car"]), np.asarray(maps["red car"]))
    # A phrase of the prompt merges its own words and none from outside.
    phrase = maps["red circle and"]
    parts = [np.asarray(maps["red circle"]), np.asarray(maps["and"])]
    assert np.allclose(np.asarray(phrase), np.average(parts, axis=0, weights=(2, 1)), **CLOSE)
    with pytest.raises(KeyError, match=r"'cat' is not in .*outside it there are dog, red"):
        maps["cat"]
    with pytest.raises(KeyError, match="not in the prompt"):
        maps["dog", 1]
    with pytest.raises(KeyError, match="no map of its own"):
        DAAM(AttentionToy()).attribute(TRAJECTORY).at(maps.outside[0])


def test_other_methods_still_refuse_words_that_are_not_there() -> None:
    with pytest.raises(KeyError, match="'dog' is not in the prompt; its words are"):
        DAAM(AttentionToy()).attribute(TRAJECTORY, ["dog"])
    with pytest.raises(KeyError, match="'dog' is not in the prompt; its words are"):
        DAAM(AttentionToy()).attribute(TRAJECTORY)["dog"]


def test_what_open_vocabulary_refuses() -> None:
    backend = AttentionToy()
    method = OpenVocabulary(backend)
    with pytest.raises(ValueError, match="'dog ' is asked for twice"):
        method.attribute(TRAJECTORY, ["Dog", "dog "])
    with pytest.raises(ValueError, match="empty"):
        method.attribute(TRAJECTORY, [" "])
    with pytest.raises(KeyError, match="occurs 2 times"):
        method.attribute(TRAJECTORY, ["circle"])
    with pytest.raises(TypeError, match="list of words"):
        method.attribute(TRAJECTORY, "dog")
    for context in ("a photo", "{word} {word}"):
        with pytest.raises(ValueError, match="context must be 'alone' or 'appended'"):
            OpenVocabulary(backend, context=context)
    with pytest.raises(MissingCapabilityError, match="attention_keys"):
        OpenVocabulary(ToyBackend())


def test_an_outside_word_of_no_token_is_named() -> None:
    class Silent(AttentionToy):
        def tokenize(self, prompt: str) -> Any:
            return toy_tokens(prompt.replace("zzz", ""))

    with pytest.raises(ValueError, match="'zzz' has no token of its own"):
        OpenVocabulary(Silent()).attribute(TRAJECTORY, ["zzz"])


# All of them


@pytest.mark.parametrize(
    "method", [SelfAttentionRefined, HeadSelection, AttentionXGradient, OpenVocabulary]
)
def test_they_cost_what_they_say(method: type[Any]) -> None:
    backend = AttentionToy({GRID: np.eye(PLACES)})
    asked = method(backend, steps=2)
    maps = asked.attribute(TRAJECTORY)
    said = asked.cost(asked.size_of(TRAJECTORY))
    spent = maps.provenance
    assert (said.forward, said.jvp, said.vjp) == (spent.forward, spent.jvp, spent.vjp)
    assert spent.forward_equivalents > 0
    assert maps.players == PromptWords.of(TRAJECTORY.tokens).players
    assert float(maps.data.min()) >= 0
