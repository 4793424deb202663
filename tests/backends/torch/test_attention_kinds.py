"""Self-attention, and attention to words that are not in the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0

from tests.backends.torch.test_tracing import hooks_of, lora
from tests.backends.torch.tiny import build_tiny_pipe
from wordlight.backends import AttentionQuery, Trajectory
from wordlight.backends.attention import OtherKeys
from wordlight.backends.torch.attention_layers import attention_layers
from wordlight.backends.torch.backend import TorchBackend

PROMPT = "a red circle and two blue triangles"
FIRST = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
EVERYTHING = AttentionQuery(keep=("step", "layer", "head"))


@pytest.fixture(scope="module")
def wide(backend: TorchBackend) -> Trajectory:
    """Latents of 12 x 20: height and width are never taken for each other unnoticed."""
    made = backend.sample(PROMPT, height=24, width=40, steps=2)
    assert isinstance(made, Trajectory)
    return made


def probabilities_of_plain_attention(
    backend: TorchBackend, trajectory: Trajectory, step: int
) -> dict[str, torch.Tensor]:
    """softmax(QKᵀ/√d) of each self-attention as diffusers' own plain processor computes it."""
    seen: dict[str, torch.Tensor] = {}
    layers = attention_layers(backend.pipe.unet, "self")
    backend.pipe.unet.set_attn_processor(AttnProcessor())
    try:
        for name, layer in layers.items():

            def scores(
                query: torch.Tensor, key: torch.Tensor, mask: Any = None, name: str = name
            ) -> torch.Tensor:
                seen[name] = Attention.get_attention_scores(layers[name], query, key, mask)
                return seen[name]

            layer.get_attention_scores = scores
        latents = backend.asarray(trajectory.latents[step][None])
        with torch.no_grad():
            backend.pipe.unet(
                latents,
                int(trajectory.timesteps[step]),
                backend.asarray(trajectory.embeddings[None]),
            )
    finally:
        for layer in layers.values():
            vars(layer).pop("get_attention_scores", None)
        backend.pipe.unet.set_attn_processor(AttnProcessor2_0())
    return seen


def test_self_attention_is_that_of_every_layer(backend: TorchBackend, wide: Trajectory) -> None:
    before = hooks_of(backend.pipe)
    means = backend.attention(wide, replace(EVERYTHING, kind="self"), (0, 1)).means
    assert hooks_of(backend.pipe) == before
    truth = probabilities_of_plain_attention(backend, wide, 1)
    assert len(truth) == 16
    assert all(name.endswith("attn1") for name in truth)
    assert {m.layer for m in means} == set(truth)
    assert len(means) == 2 * 16 * 8
    assert {m.values.shape for m in means} == {
        (h * w, h, w) for h, w in ((12, 20), (6, 10), (3, 5), (2, 3))
    }
    for mean in means:
        # Each query shares out one whole; float32 rounding.
        assert np.abs(mean.values.sum(0) - 1).max() < 1e-5
        if mean.step == 1:
            assert mean.layer is not None
            queries_by_keys = truth[mean.layer][mean.head].numpy()
            _, height, width = mean.values.shape
            for y, x in ((0, 1), (height - 1, 0), (1, width - 1)):
                wanted = queries_by_keys[y * width + x]
                # The plain processor multiplies in another order.
                assert np.abs(mean.values[:, y, x] - wanted).max() < 1e-5


def test_self_attention_is_averaged_and_selected(backend: TorchBackend, wide: Trajectory) -> None:
    apart = backend.attention(wide, replace(EVERYTHING, kind="self"), (0, 1)).means
    query = AttentionQuery(layers=("up_blocks",), heads=(1, 5), factors=(2,), kind="self")
    (some,) = backend.attention(wide, query, (0, 1)).means
    assert some.values.shape == (60, 6, 10)
    picked = [
        m.values
        for m in apart
        if m.layer
        and m.layer.startswith("up_blocks")
        and m.head in (1, 5)
        and m.values.shape[1:] == (6, 10)
    ]
    assert some.count == len(picked) == 3 * 2 * 2
    # A mean in another order: float32 rounding.
    assert np.abs(some.values - np.mean(picked, axis=0)).max() < 1e-6


def in_their_places(
    backend: TorchBackend, trajectory: Trajectory, places: Sequence[int]
) -> OtherKeys:
    """Tokens of a prompt as words, each in its own place."""
    embeddings = backend.asarray(trajectory.embeddings[list(places)])
    words = [((k,), (place,)) for k, place in enumerate(places)]
    return OtherKeys.of(embeddings, words, len(trajectory.tokens))


def test_a_token_s_own_key_gives_its_own_probability(
    backend: TorchBackend, wide: Trajectory
) -> None:
    """In any order and number: keys are looked at one by one and change nothing of the run."""
    before = hooks_of(backend.pipe)
    ordinary = backend.attention(wide, EVERYTHING, (0, 1)).means
    order = np.random.default_rng(0).permutation(len(wide.tokens))[:20]
    keys = in_their_places(backend, wide, order)
    asked = backend.attention(wide, EVERYTHING, (0, 1), keys).means
    assert hooks_of(backend.pipe) == before
    assert len(asked) == len(ordinary) == 2 * 16 * 8
    for own, other in zip(ordinary, asked, strict=True):
        assert (own.step, own.layer, own.head) == (other.step, other.layer, other.head)
        assert other.values.shape == (20, *own.values.shape[1:])
        # The sum's logarithm is subtracted instead of dividing by the sum: float32 rounding of
        # scores of some tens.
        assert np.abs(own.values[order] - other.values).max() < 1e-5
        assert np.abs(own.values.sum(0) - 1).max() < 1e-5


def test_keys_go_through_the_layer_s_own_module(fresh_pipe: StableDiffusionPipeline) -> None:
    lora(fresh_pipe)
    adapted = TorchBackend(fresh_pipe, steps=1)
    trajectory = adapted.sample(PROMPT)
    (own,) = adapted.attention(trajectory, AttentionQuery(layers=(FIRST,)), (0,)).means
    keys = in_their_places(adapted, trajectory, range(len(trajectory.tokens)))
    (other,) = adapted.attention(trajectory, AttentionQuery(layers=(FIRST,)), (0,), keys).means
    assert np.abs(own.values - other.values).max() < 1e-6
    fresh_pipe.unet.disable_adapters()
    (without,) = adapted.attention(trajectory, AttentionQuery(layers=(FIRST,)), (0,)).means
    # What the check above would see if the LoRA were left out.
    assert np.abs(own.values - without.values).max() > 1e-4


def test_a_word_that_is_not_there_by_putting_it_there(wide: Trajectory) -> None:
    """Two tokens in the place of two others, and two beside all: what they would get is what they
    get once they stand there. Of the first layer, whose queries no word has reached yet."""
    exact = TorchBackend(build_tiny_pipe().to(torch.float64))
    query = AttentionQuery(layers=(FIRST,), heads=(3,))
    others = exact.encode(["a green square"]).embeddings[0, 2:4]
    tokens = len(wide.tokens)

    def asked(*places: int) -> Any:
        keys = OtherKeys.of(others, [((0, 1), places)], tokens)
        (mean,) = exact.attention(wide, query, (0,), keys).means
        return mean.values

    def there(embeddings: Any) -> Any:
        made = np.concatenate(embeddings)
        more = len(made) - tokens
        longer = replace(
            wide.tokens,
            ids=(*wide.tokens.ids, *[0] * more),
            texts=(*wide.tokens.texts, *["more"] * more),
            offsets=(*wide.tokens.offsets, *[(0, 0)] * more),
            kinds=(*wide.tokens.kinds, *["pad"] * more),
        )
        given = replace(
            wide, tokens=longer, embeddings=made, empty_embeddings=made, negative_embeddings=made
        )
        (mean,) = exact.attention(given, query, (0,)).means
        return mean.values

    new, own = exact.to_numpy(others), wide.embeddings
    # What comes back is rounded to float32; at shares up to 1.
    in_place = there([own[:5], new, own[7:]])[5:7]
    assert np.abs(asked(5, 6) - in_place).max() < 1e-6
    beside = there([own, new])[-2:]
    assert np.abs(asked() - beside).max() < 1e-6
    # The places matter, and the two hear of each other.
    assert np.abs(in_place - beside).max() > 1e-2
    alone = OtherKeys.of(others, [((0,), (5,)), ((1,), (6,))], tokens)
    (mean,) = exact.attention(wide, query, (0,), alone).means
    assert np.abs(mean.values - in_place).max() > 1e-2
    assert mean.values.max() <= 1


def test_a_word_that_would_have_all_of_it(backend: TorchBackend, wide: Trajectory) -> None:
    """Scores far beyond the prompt's own are shares all the same."""
    keys = OtherKeys.of(1e4 * backend.asarray(wide.embeddings[3:5]), [((0,), ()), ((1,), (4,))], 32)
    for mean in backend.attention(wide, EVERYTHING, (0,), keys).means:
        assert np.isfinite(mean.values).all()
        assert 0 <= mean.values.min() <= mean.values.max() <= 1 + 1e-6


def test_what_cannot_be_asked(backend: TorchBackend, wide: Trajectory) -> None:
    keys = in_their_places(backend, wide, range(len(wide.tokens)))
    within = AttentionQuery(kind="self")
    with pytest.raises(ValueError, match="self-attention has none"):
        backend.attention(wide, within, (0,), keys)
    narrow = keys._replace(embeddings=keys.embeddings[:, :-1])
    with pytest.raises(ValueError, match=r"keys must be \(others, 24 channels\), not \(32, 23\)"):
        backend.attention(wide, AttentionQuery(), (0,), narrow)
    short = keys._replace(displaced=keys.displaced[:-2])
    with pytest.raises(ValueError, match=r"among 32 tokens, not \(32, 24\) with \(30, 32\)"):
        backend.attention(wide, AttentionQuery(), (0,), short)
    for words in ([], [((0,), ()), ((0,), ())], [((0,), ())]):
        with pytest.raises(ValueError, match="of exactly one word"):
            OtherKeys.of(keys.embeddings[:2] if words else keys.embeddings[:0], words, 32)
    with pytest.raises(ValueError, match="no self-attention layer"):
        backend.attention(wide, replace(within, layers=(FIRST,)), (0,))


def test_hooks_go_when_a_key_cannot_be_had(
    backend: TorchBackend, wide: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hooks_of(backend.pipe)
    last = list(attention_layers(backend.pipe.unet).values())[-1]

    def refuse(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(last.to_k, "forward", refuse)
    keys = in_their_places(backend, wide, range(4))
    with pytest.raises(ZeroDivisionError):
        backend.attention(wide, AttentionQuery(), (0,), keys)
    assert hooks_of(backend.pipe) == before


def test_merged_places_are_said(
    backend: TorchBackend, wide: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token merging, as tomesd does it, hands fewer places to the attention."""
    layer = attention_layers(backend.pipe.unet, "self")[FIRST.replace("attn2", "attn1")]

    class Halving(AttnProcessor2_0):
        def __call__(self, attn: Any, hidden_states: torch.Tensor, **options: Any) -> Any:
            half = super().__call__(attn, hidden_states[:, ::2], **options)
            return half.repeat_interleave(2, dim=1)

    monkeypatch.setattr(layer, "processor", Halving())
    before = hooks_of(backend.pipe)
    with pytest.raises(ValueError, match="120 places over features of 12 x 20: tokens are merged"):
        backend.attention(wide, AttentionQuery(kind="self"), (0,))
    assert hooks_of(backend.pipe) == before
