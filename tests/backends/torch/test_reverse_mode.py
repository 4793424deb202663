"""Gradients with respect to embeddings and to attention probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import (
    AttnProcessor,
    AttnProcessor2_0,
    SlicedAttnProcessor,
)

from tests.backends.torch.test_tracing import hooks_of, lora
from tests.backends.torch.tiny import build_tiny_pipe
from wordlight.backends import AttentionQuery, Conditioning
from wordlight.backends.torch.attention_layers import attention_layers
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.explicit_attention import ExplicitAttention

TIME = 400
#: Latents of 8 x 12: height and width are never taken for each other unnoticed.
SHAPE = (4, 8, 12)
APART = AttentionQuery(keep=("step", "layer", "head"))


@pytest.fixture(scope="module")
def exact() -> TorchBackend:
    """In float64, where differences are those of the mathematics."""
    return TorchBackend(build_tiny_pipe("v_prediction").to(torch.float64))


def drawn(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


LATENTS, STATES, COTANGENT = drawn(0, 1, *SHAPE), drawn(1, 1, 32, 24), drawn(2, 1, *SHAPE)


def layers_of(backend: TorchBackend) -> dict[str, Any]:
    return attention_layers(backend.pipe.unet)


def traces_of_explicit_mode(backend: TorchBackend) -> list[Any]:
    """Everything that the mode could leave: hooks, processors, shadowed methods."""
    return [
        hooks_of(backend.pipe),
        [id(layer.processor) for layer in layers_of(backend).values()],
        [
            name
            for name, layer in layers_of(backend).items()
            if "get_attention_scores" in vars(layer)
        ],
        sum(weight.grad is not None for weight in backend.pipe.unet.parameters()),
    ]


def attention_vjp(backend: TorchBackend, query: AttentionQuery = APART) -> Any:
    return backend.attention_vjp(LATENTS, TIME, Conditioning(STATES), COTANGENT, query).means


def test_reverse_mode_is_the_transpose_of_forward_mode(exact: TorchBackend) -> None:
    """⟨v, Ju⟩ = ⟨Jᵀv, u⟩ at each row of a batch."""
    latents, states, cotangent = drawn(3, 2, *SHAPE), drawn(4, 2, 32, 24), drawn(5, 2, *SHAPE)
    tangents = drawn(6, 3, 32, 24)
    before = exact.evaluations.vjp
    gradient = exact.denoise_vjp(latents, TIME, Conditioning(states), cotangent)
    assert exact.evaluations.vjp == before + 2
    assert gradient.shape == states.shape
    for row in range(2):
        at = Conditioning(states[row : row + 1])
        _, changes = exact.denoise_jvp(latents[row : row + 1], TIME, at, tangents)
        ahead = (changes * cotangent[row]).sum((1, 2, 3))
        back = (tangents * gradient[row]).sum((1, 2))
        # float64 rounding, accumulated through some hundred operations of other orders.
        assert torch.allclose(ahead, back, rtol=1e-9, atol=1e-12)


def test_gradients_leave_nothing(exact: TorchBackend) -> None:
    before = traces_of_explicit_mode(exact)
    states = STATES.clone().requires_grad_()
    recorded = exact.denoise_vjp(LATENTS, TIME, Conditioning(states), COTANGENT)
    assert not recorded.requires_grad
    assert states.grad is None
    with torch.no_grad():
        unrecorded = exact.denoise_vjp(LATENTS, TIME, Conditioning(STATES), COTANGENT)
    with torch.inference_mode():
        inferred = exact.denoise_vjp(
            LATENTS.clone(), TIME, Conditioning(STATES.clone()), COTANGENT.clone()
        )
        of_attention = attention_vjp(exact, AttentionQuery())
    assert torch.equal(recorded, unrecorded)
    assert torch.equal(recorded, inferred.clone())
    for one, other in zip(of_attention, attention_vjp(exact, AttentionQuery()), strict=True):
        assert (one.values == other.values).all()
    assert traces_of_explicit_mode(exact) == before


def test_cotangents_of_another_shape(exact: TorchBackend) -> None:
    with pytest.raises(ValueError, match=r"prediction's shape \(1, 4, 8, 12\), not \(1, 4, 1, 1\)"):
        exact.denoise_vjp(LATENTS, TIME, Conditioning(STATES), COTANGENT[..., :1, :1])
    with pytest.raises(ValueError, match=r"prediction's shape"):
        exact.attention_vjp(LATENTS, TIME, Conditioning(STATES), COTANGENT[:, :1], APART)


@torch.no_grad()
def product(backend: TorchBackend, look: Callable[..., torch.Tensor]) -> float:
    """S with the probabilities as ``look`` gives them."""
    with ExplicitAttention(backend.model, AttentionQuery(), look):
        prediction = backend.denoise(LATENTS, TIME, Conditioning(STATES))
    return float((prediction * COTANGENT).sum())


@pytest.mark.parametrize(
    "processor",
    [AttnProcessor2_0(), AttnProcessor(), SlicedAttnProcessor(2)],
    ids=["fused", "plain", "sliced"],
)
@torch.no_grad()
def test_the_explicit_mode_computes_the_same(processor: Any) -> None:
    pipe = build_tiny_pipe().to(torch.float64)
    lora(pipe)
    pipe.unet.to(torch.float64).set_attn_processor(processor)
    backend = TorchBackend(pipe)
    wanted = backend.denoise(LATENTS, TIME, Conditioning(STATES))
    seen = {}

    def look(name: str, grid: tuple[int, int], probs: torch.Tensor) -> torch.Tensor:
        seen[name] = (grid, probs)
        return probs

    with ExplicitAttention(backend.model, AttentionQuery(), look):
        explicit = backend.denoise(LATENTS, TIME, Conditioning(STATES))
    # float64 rounding, in another order; the fused kernel's exponential is a little rougher.
    assert (explicit - wanted).abs().max() < 1e-10
    assert torch.equal(backend.denoise(LATENTS, TIME, Conditioning(STATES)), wanted)
    assert set(seen) == set(layers_of(backend))
    for grid, probs in seen.values():
        assert probs.shape == (1, 8, grid[0] * grid[1], 32)
        # Rows share out one whole; float64 rounding.
        assert (probs.sum(-1) - 1).abs().max() < 1e-12


def test_gradients_of_single_probabilities_equal_differences(exact: TorchBackend) -> None:
    """Moving one probability on its way to the values moves S by ∂S/∂A: the map's value there is
    ReLU(A·∂S/∂A)."""
    found = {(m.layer, m.head): m for m in attention_vjp(exact)}
    assert len(found) == 16 * 8
    rng = np.random.default_rng(0)
    positive, step = 0, 1e-4
    for name in list(layers_of(exact))[::3]:
        for _ in range(3):
            height, width = found[name, 0].values.shape[1:]
            head, token = int(rng.integers(8)), int(rng.integers(32))
            y, x = int(rng.integers(height)), int(rng.integers(width))
            at = {}

            def moved(by: float) -> float:
                def look(layer: str, grid: tuple[int, int], probs: torch.Tensor) -> torch.Tensor:
                    if layer == name:  # noqa: B023 - called at once
                        probs = probs.clone()
                        one = (0, head, y * grid[1] + x, token)  # noqa: B023
                        at["probability"] = float(probs[one])  # noqa: B023
                        probs[one] += by
                    return probs

                return product(exact, look)

            slope = (moved(step) - moved(-step)) / (2 * step)
            wanted = max(at["probability"] * slope, 0.0)
            ours = found[name, head].values[token, y, x]
            # Central differences: step² times a third derivative, and rounding of S / step, 1e-11;
            # what comes back is rounded to float32.
            assert abs(ours - wanted) < 1e-6 * abs(wanted) + 1e-10
            positive += wanted > 1e-7
    # About half of all slopes are positive; a map of zeros would not pass.
    assert positive >= 5


def test_gradient_along_a_whole_layer_equals_differences(exact: TorchBackend) -> None:
    """Scaling one token's probabilities of a layer by 1 + h moves S by Σ A·∂S/∂A: the maps of S
    and of -S hold its positive and its negative part."""
    name = "up_blocks.2.attentions.1.transformer_blocks.0.attn2"
    query = AttentionQuery(layers=(name,))
    (up,) = attention_vjp(exact, query)
    (down,) = exact.attention_vjp(LATENTS, TIME, Conditioning(STATES), -COTANGENT, query).means
    assert up.values.min() >= 0
    assert up.count == 8
    (step, token), slopes = (1e-5, 7), []
    for sign in (1, -1):

        def look(layer: str, grid: tuple[int, int], probs: torch.Tensor, by: float = sign) -> Any:
            factor = torch.ones(32, dtype=torch.float64)
            factor[token] += by * step
            return probs * factor if layer == name else probs

        slopes.append(product(exact, look))
    wanted = (slopes[0] - slopes[1]) / (2 * step)
    ours = 8 * float((up.values[token].astype(np.float64) - down.values[token]).sum())
    # As above; a mean over 8 heads, of float32.
    assert abs(ours - wanted) < 1e-5 * abs(wanted)


def test_averages_honour_the_query(exact: TorchBackend) -> None:
    apart = attention_vjp(exact)
    assert {m.step for m in apart} == {0}
    query = AttentionQuery(layers=("up_blocks",), without_layers=("up_blocks.3",), heads=(2, 5))
    for mean in attention_vjp(exact, query):
        picked = [
            m.values
            for m in apart
            if m.layer.startswith(("up_blocks.1", "up_blocks.2"))
            and m.head in (2, 5)
            and m.values.shape == mean.values.shape
        ]
        assert mean.count == len(picked) > 0
        # A mean in another order: float32 rounding.
        assert np.abs(mean.values - np.mean(picked, axis=0)).max() < 1e-6 * mean.values.max()
    (middle,) = attention_vjp(exact, AttentionQuery(factors=(8,)))
    (alone,) = attention_vjp(exact, AttentionQuery(layers=("mid_block",)))
    # Other layers are explicit or fused: float64 rounding, and that of the result to float32.
    assert np.abs(middle.values - alone.values).max() < 1e-6 * alone.values.max()
    with pytest.raises(ValueError, match="no such grid"):
        attention_vjp(exact, AttentionQuery(factors=(3,)))
    with pytest.raises(ValueError, match="no cross-attention layer"):
        attention_vjp(exact, AttentionQuery(layers=("up_blocks.9",)))
    with pytest.raises(ValueError, match="not of self-attention"):
        attention_vjp(exact, replace(APART, kind="self"))
    twice = LATENTS.expand(2, -1, -1, -1)
    with pytest.raises(ValueError, match="one row at a time"):
        exact.attention_vjp(twice, TIME, Conditioning(STATES), COTANGENT, APART)


def test_checkpointing_changes_nothing(fresh_pipe: StableDiffusionPipeline) -> None:
    backend = TorchBackend(fresh_pipe.to(torch.float64))
    wanted = attention_vjp(backend)
    fresh_pipe.unet.enable_gradient_checkpointing()
    for mean, other in zip(wanted, attention_vjp(backend), strict=True):
        assert (mean.layer, mean.head) == (other.layer, other.head)
        assert (mean.values == other.values).all()


def test_frozen_and_half_precision_weights(fresh_pipe: StableDiffusionPipeline) -> None:
    backend = TorchBackend(fresh_pipe)
    given = [backend.asarray(a) for a in (LATENTS, STATES, COTANGENT)]
    wanted = backend.attention_vjp(given[0], TIME, Conditioning(given[1]), given[2], APART).means
    fresh_pipe.unet.requires_grad_(False)
    frozen = backend.attention_vjp(given[0], TIME, Conditioning(given[1]), given[2], APART).means
    assert all((a.values == b.values).all() for a, b in zip(wanted, frozen, strict=True))
    half = TorchBackend(fresh_pipe.to(torch.bfloat16))
    given = [half.asarray(a) for a in (LATENTS, STATES, COTANGENT)]
    rough = half.attention_vjp(given[0], TIME, Conditioning(given[1]), given[2], AttentionQuery())
    for mean in rough.means:
        assert np.isfinite(mean.values).all()
        assert mean.values.max() > 0
    assert half.denoise_vjp(given[0], TIME, Conditioning(given[1]), given[2]).isfinite().all()


def test_everything_is_back_after_an_exception(exact: TorchBackend) -> None:
    before = traces_of_explicit_mode(exact)

    def fail(*_: Any) -> torch.Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        product(exact, fail)
    assert traces_of_explicit_mode(exact) == before


def test_everything_is_back_when_putting_it_in_place_fails_half_way(
    exact: TorchBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact.pipe.unet.set_attn_processor(AttnProcessor())
    before = traces_of_explicit_mode(exact)
    victim = list(layers_of(exact).values())[7]

    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(victim, "register_forward_hook", fail)
    with pytest.raises(ZeroDivisionError):
        attention_vjp(exact)
    assert traces_of_explicit_mode(exact) == before
    exact.pipe.unet.set_attn_processor(AttnProcessor2_0())


def test_any_processor_and_any_scale(fresh_pipe: StableDiffusionPipeline) -> None:
    """What a processor passes to the kernel decides, not what the layer's attributes say."""
    backend = TorchBackend(fresh_pipe.to(torch.float64))
    wanted = attention_vjp(backend)
    layer = list(layers_of(backend).values())[2]
    # The fused processor takes no notice of it.
    layer.scale = 2.0
    for mean, other in zip(wanted, attention_vjp(backend), strict=True):
        assert (mean.values == other.values).all()

    class Sharper(AttnProcessor):
        def __call__(self, attn: Any, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(attn, 2 * hidden_states, *args, **kwargs)

    layer.set_processor(Sharper())
    changed = attention_vjp(backend)
    assert len(changed) == len(wanted)
    assert max(np.abs(a.values - b.values).max() for a, b in zip(wanted, changed, strict=True)) > 0
