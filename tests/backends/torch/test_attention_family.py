"""The attention family on a diffusers UNet, against what is computed beside the backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor

from wordlight.attribution import (
    DAAM,
    AttentionXGradient,
    HeadSelection,
    OpenVocabulary,
    Region,
    SelfAttentionRefined,
)
from wordlight.attribution.methods.attention_x_gradient import cotangent
from wordlight.attribution.question import Question
from wordlight.attribution.step import Inputs, prepare_step
from wordlight.attribution.targets import Guidance
from wordlight.backends.attention import AttentionQuery
from wordlight.backends.backend import Conditioning
from wordlight.backends.loading import load
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.trajectory import Trajectory

PROMPT = "a red circle and a blue square"
STEP = 1


@pytest.fixture(scope="module")
def trajectory(backend: TorchBackend) -> Trajectory:
    return backend.sample(PROMPT, seed=0)


class Keeping(AttnProcessor):
    """diffusers' plain attention, with its probabilities kept."""

    def __init__(self, kept: dict[str, torch.Tensor], name: str) -> None:
        super().__init__()
        self.kept, self.name = kept, name

    def __call__(self, attn: Attention, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        told = kwargs.get("encoder_hidden_states")
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(hidden_states if told is None else told))
        self.kept[self.name] = attn.get_attention_scores(query, key)
        return super().__call__(attn, hidden_states, *args, **kwargs)


def kept_probabilities(backend: TorchBackend, trajectory: Trajectory) -> dict[str, torch.Tensor]:
    """Every layer's probabilities at a step, ``(heads, places, keys)``, by its name."""
    unet = backend.pipe.unet
    before = unet.attn_processors
    kept: dict[str, torch.Tensor] = {}
    unet.set_attn_processor({name: Keeping(kept, name) for name in before})
    try:
        with torch.no_grad():
            backend.denoise(
                backend.asarray(trajectory.latents[STEP][None]),
                float(trajectory.timesteps[STEP]),
                Conditioning(backend.asarray(trajectory.embeddings[None])),
            )
    finally:
        unet.set_attn_processor(before)
    return kept


def test_self_attention_refined(backend: TorchBackend, trajectory: Trajectory) -> None:
    height, width = trajectory.grid
    places = height * width
    found = kept_probabilities(backend, trajectory)
    finest = [p for name, p in found.items() if "attn1" in name and p.shape[1] == places]
    s = torch.cat(finest).mean(0).double().numpy()
    plain = DAAM(backend, steps=(STEP,)).attribute(trajectory)
    maps = SelfAttentionRefined(backend, steps=(STEP,)).attribute(trajectory)
    twice = SelfAttentionRefined(backend, steps=(STEP,), power=2).attribute(trajectory)
    daam = plain.data.values.reshape(-1, places).T
    wanted = s @ daam
    # DAAM clamps before, this after: on attention that is above zero everywhere it's the same.
    # Float32 sums in another order leave 1e-6 of values near 0.03.
    assert daam.min() > 0
    assert np.allclose(maps.data.values.reshape(-1, places).T, wanted, rtol=1e-4)
    assert np.allclose(twice.data.values.reshape(-1, places).T, s @ wanted, rtol=1e-4)
    assert np.abs(wanted - daam).max() > 1e-3 * daam.max()


def test_all_heads_are_daam_and_a_head_is_its_own(
    backend: TorchBackend, trajectory: Trajectory
) -> None:
    every = HeadSelection(backend, share=1.0).attribute(trajectory)
    # Sums in another order.
    daam = DAAM(backend).attribute(trajectory)
    assert np.allclose(every.data, daam.data, rtol=1e-4, atol=1e-7)
    layer = backend.layers[0].name
    one = HeadSelection(backend, heads=[(layer, 1)]).attribute(trajectory)
    alone = DAAM(backend, layers=[layer], heads=[1]).attribute(trajectory)
    assert np.allclose(one.data, alone.data, rtol=1e-4, atol=1e-7)
    few = HeadSelection(backend).attribute(trajectory)
    assert np.abs(few.data - daam.data).max() > 1e-4


def test_the_prompts_own_embeddings_give_daam(
    backend: TorchBackend, trajectory: Trajectory
) -> None:
    """The whole prompt asked for as one phrase is encoded as the prompt is."""
    phrase = slice(0, len(PROMPT))
    maps = OpenVocabulary(backend, context="alone").attribute(trajectory, [phrase, "green star"])
    daam = DAAM(backend).attribute(trajectory)
    assert np.allclose(np.asarray(maps[phrase]), np.asarray(daam[phrase]), rtol=1e-4, atol=1e-7)
    for special in ("<start>", "<end>", "<pad>"):
        assert np.allclose(
            np.asarray(maps[special]), np.asarray(daam[special]), rtol=1e-4, atol=1e-7
        )
    other = np.asarray(maps["green star"])
    assert other.min() >= 0
    assert other.std() > 0
    with pytest.raises(KeyError, match="green star"):
        maps["purple star"]


def test_a_word_behind_the_prompt_hears_of_it(
    backend: TorchBackend, trajectory: Trajectory
) -> None:
    alone, behind = (
        np.asarray(OpenVocabulary(backend, context=c).attribute(trajectory, ["star"])["star"])
        for c in ("alone", "appended")
    )
    assert np.abs(alone - behind).max() > 1e-5


def test_the_cotangent_is_the_push(backend: TorchBackend, trajectory: Trajectory) -> None:
    question = Question(trajectory, (), (STEP,), trajectory.empty_embeddings)
    with torch.no_grad():
        step = prepare_step(question, Inputs.of(backend, question, "embeddings"), STEP)
        ends = backend.asarray(np.stack([trajectory.embeddings, trajectory.empty_embeddings]))
        full, empty = step.predict(ends)
    # u·‖g‖ against g: rounding of float32 on values of order 0.1.
    assert torch.allclose(cotangent(step, Guidance())[0], full - empty, rtol=1e-4, atol=1e-6)


def test_attention_x_gradient_by_autograd(backend: TorchBackend, trajectory: Trajectory) -> None:
    """With every probability of one layer scaled by a leaf, S's slope there is A ⊙ ∂S/∂A."""
    layer = [one for one in backend.layers if one.name.startswith("up_blocks")][-1]
    query = AttentionQuery(layers=(layer.name,))
    unet = backend.pipe.unet
    attention = unet.get_submodule(layer.name)
    before = attention.processor
    scale = torch.ones(layer.heads, *_places(trajectory), len(trajectory.tokens))
    scale.requires_grad_(True)
    attention.set_processor(_Scaled(scale))
    latents = backend.asarray(trajectory.latents[STEP][None])
    time = float(trajectory.timesteps[STEP])
    ends = backend.asarray(np.stack([trajectory.embeddings, trajectory.empty_embeddings]))
    try:
        full = backend.denoise(latents, time, Conditioning(ends[:1]))
        with torch.no_grad():
            attention.set_processor(before)
            empty = backend.denoise(latents, time, Conditioning(ends[1:]))
        (slope,) = torch.autograd.grad(0.5 * (full - empty).square().sum(), scale)
    finally:
        attention.set_processor(before)
    with torch.no_grad():
        means = backend.attention_vjp(
            latents, time, Conditioning(ends[:1]), (full - empty).detach(), query
        )
    wanted = slope.relu().mean(0).T.reshape(-1, *trajectory.grid).numpy()
    (mean,) = means.means
    assert wanted.max() > 0
    # Float32 in another order.
    assert np.allclose(mean.values, wanted, rtol=1e-3, atol=1e-4 * wanted.max())


def _places(trajectory: Trajectory) -> tuple[int]:
    return (trajectory.grid[0] * trajectory.grid[1],)


class _Scaled(AttnProcessor):
    def __init__(self, scale: torch.Tensor) -> None:
        super().__init__()
        self.scale = scale

    def __call__(self, attn: Attention, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        plain = attn.get_attention_scores
        attn.get_attention_scores = lambda *given: plain(*given) * self.scale  # type: ignore[method-assign]
        try:
            return super().__call__(attn, hidden_states, *args, **kwargs)
        finally:
            del attn.get_attention_scores


def test_attention_x_gradient_maps(backend: TorchBackend, trajectory: Trajectory) -> None:
    maps = AttentionXGradient(backend, steps=(STEP,)).attribute(trajectory)
    circle = np.asarray(maps["circle"])
    assert circle.min() >= 0
    assert circle.std() > 0
    assert (maps.provenance.forward, maps.provenance.vjp) == (2, 1)
    mask = np.zeros(trajectory.image.shape[:2])
    mask[: mask.shape[0] // 2] = 1
    half = AttentionXGradient(backend, steps=(STEP,)).attribute(trajectory, target=Region(mask))
    assert np.abs(half.data / half.data.max() - maps.data / maps.data.max()).max() > 1e-3


def test_scores_of_a_word_by_itself_are_on_daams_scale() -> None:
    """On the embedded model: a word that stands in the default context anyway has DAAM's map, and
    another word's scores are probabilities, too."""
    backend = load("scenes")
    drawn = backend.sample("a circle", seed=0, steps=4)
    daam = DAAM(backend).attribute(drawn)
    maps = OpenVocabulary(backend).attribute(drawn, ["triangle"])
    own, wanted = np.asarray(maps["circle"]), np.asarray(daam["circle"])
    # Float32 sums in another order.
    assert np.allclose(own, wanted, rtol=1e-3, atol=1e-6)
    assert wanted.mean() > 1e-3
    other = np.asarray(maps["triangle"])
    assert np.abs(other - wanted).max() > 1e-3 * wanted.max()
    # Words that no prompt of this model's goes on with so can have scores of millions.
    for word in ("red", "two", "dog", "the of"):
        strange = np.asarray(OpenVocabulary(backend).attribute(drawn, [word])[word])
        assert 0 <= strange.min() <= strange.max() <= 1
