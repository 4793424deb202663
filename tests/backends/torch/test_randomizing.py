"""Random weights from the output down, and the trained ones back to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from tests.backends.torch.test_tracing import lora
from wordlight.backends import Conditioning, load
from wordlight.backends.backend import MissingCapabilityError
from wordlight.backends.torch.backend import TorchBackend

PROMPT = "a red circle and two blue triangles"
STAGES = (
    "conv_out",
    *(f"up_blocks.{i}" for i in (3, 2, 1, 0)),
    "mid_block",
    *(f"down_blocks.{i}" for i in (3, 2, 1, 0)),
    "conv_in",
    "text_encoder",
)


def state(pipe: StableDiffusionPipeline) -> dict[str, torch.Tensor]:
    """All weights and buffers, copied."""
    return {
        f"{part}.{name}": value.clone()
        for part in ("unet", "text_encoder", "vae")
        for name, value in (
            *getattr(pipe, part).named_parameters(),
            *getattr(pipe, part).named_buffers(),
        )
    }


def changed(before: dict[str, torch.Tensor], pipe: StableDiffusionPipeline) -> set[str]:
    return {name for name, value in state(pipe).items() if not torch.equal(before[name], value)}


@torch.no_grad()
def predicted(backend: TorchBackend) -> torch.Tensor:
    latents = torch.ones(1, 4, 8, 12).to(backend.pipe.unet.dtype)
    prediction: torch.Tensor = backend.denoise(latents, 400, backend.encode([PROMPT]))
    return prediction


def test_stages_go_from_the_output_down(fresh_pipe: StableDiffusionPipeline) -> None:
    backend = TorchBackend(fresh_pipe)
    assert backend.stages == STAGES
    trained, before, random = state(fresh_pipe), predicted(backend), torch.get_rng_state()
    last: dict[str, torch.Tensor] = {}
    reached: set[str] = set()
    for stage in STAGES:
        with backend.randomized(stage, seed=3):
            now, here = changed(trained, fresh_pipe), state(fresh_pipe)
            # What was random before is random in the same way: only this stage's weights are new.
            assert all(torch.equal(here[name], last[name]) for name in reached)
            assert reached < now
            part = "text_encoder" if stage == "text_encoder" else f"unet.{stage}"
            assert any(name.startswith(part) for name in now - reached)
            assert predicted(backend).isfinite().all()
            assert not torch.equal(predicted(backend), before)
        last, reached = here, now
        assert not changed(trained, fresh_pipe)
    # Everything, except what the layers' own way of drawing leaves as it is: norms' ones and zeros.
    left = {n for n in trained if not n.startswith("vae.") and n not in reached}
    assert all("norm" in name or "position_ids" in name for name in left)
    assert not any(name.startswith("vae.") for name in reached)
    assert torch.equal(predicted(backend), before)
    assert torch.equal(torch.get_rng_state(), random)


def test_norms_are_reset_and_buffers_stay(fresh_pipe: StableDiffusionPipeline) -> None:
    unet = fresh_pipe.unet
    with torch.no_grad():
        unet.conv_norm_out.weight.fill_(3.0), unet.conv_norm_out.bias.fill_(1.0)
    unet.conv_out.register_buffer("kept", torch.full((2,), 5.0))
    weight = unet.conv_norm_out.weight
    memory = weight.data_ptr()
    with TorchBackend(fresh_pipe).randomized("conv_out"):
        assert (unet.conv_norm_out.weight == 1).all()
        assert (unet.conv_norm_out.bias == 0).all()
        assert (unet.conv_out.kept == 5).all()
        # PyTorch draws a convolution's weights from within 1/√(inputs of an output).
        bound = 1 / (16 * 9) ** 0.5
        assert 0.9 * bound < unet.conv_out.weight.abs().max() <= bound
    assert unet.conv_norm_out.weight is weight
    assert weight.data_ptr() == memory
    assert (weight == 3).all()
    assert weight.requires_grad


def test_the_seed_decides_alone(fresh_pipe: StableDiffusionPipeline) -> None:
    backend = TorchBackend(fresh_pipe)

    def drawn(seed: int) -> torch.Tensor:
        with backend.randomized("mid_block", seed):
            return predicted(backend)

    first = drawn(1)
    torch.manual_seed(99)
    assert torch.equal(drawn(1), first)
    assert not torch.equal(drawn(2), first)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(fresh_pipe: StableDiffusionPipeline, dtype: torch.dtype) -> None:
    with TorchBackend(fresh_pipe).randomized("text_encoder", seed=1):
        wide = state(fresh_pipe)
    half = TorchBackend(fresh_pipe.to(dtype))
    trained = state(fresh_pipe)
    with half.randomized("text_encoder", seed=1):
        here = state(fresh_pipe)
    assert not changed(trained, fresh_pipe)
    # The same weights, rounded.
    for name, value in here.items():
        if not name.startswith("vae.") and value.is_floating_point():
            assert value.dtype == dtype
            assert torch.equal(value, wide[name].to(dtype))


def test_a_random_text_encoder_changes_only_what_encodes_anew(
    fresh_pipe: StableDiffusionPipeline,
) -> None:
    backend = TorchBackend(fresh_pipe)
    states = backend.encode([PROMPT]).embeddings
    latents = torch.ones(1, 4, 8, 12)
    with torch.no_grad():
        with backend.randomized("conv_in", seed=1):
            without = backend.denoise(latents, 400, Conditioning(states))
            assert torch.equal(backend.encode([PROMPT]).embeddings, states)
        with backend.randomized("text_encoder", seed=1):
            replayed = backend.denoise(latents, 400, Conditioning(states))
            assert not torch.allclose(backend.encode([PROMPT]).embeddings, states)
    assert torch.equal(without, replayed)


def test_trained_weights_are_back_after_an_exception(fresh_pipe: StableDiffusionPipeline) -> None:
    trained, backend = state(fresh_pipe), TorchBackend(fresh_pipe)
    with pytest.raises(ZeroDivisionError), backend.randomized("text_encoder"):  # noqa: PT012
        assert changed(trained, fresh_pipe)
        raise ZeroDivisionError
    assert not changed(trained, fresh_pipe)


def test_trained_weights_are_back_when_drawing_fails_half_way(
    fresh_pipe: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, random = state(fresh_pipe), torch.get_rng_state()

    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(fresh_pipe.unet.conv_in, "reset_parameters", fail)
    with pytest.raises(ZeroDivisionError), TorchBackend(fresh_pipe).randomized("conv_in"):
        pass
    assert not changed(trained, fresh_pipe)
    assert torch.equal(torch.get_rng_state(), random)


def test_a_lora_is_randomised_and_comes_back(fresh_pipe: StableDiffusionPipeline) -> None:
    lora(fresh_pipe)
    trained = state(fresh_pipe)
    with TorchBackend(fresh_pipe).randomized("conv_in"):
        now = changed(trained, fresh_pipe)
    assert any("lora_A" in name for name in now)
    assert any("base_layer" in name for name in now)
    assert not changed(trained, fresh_pipe)


def test_the_embedded_model() -> None:
    backend: Any = load("scenes", device="cpu")
    before = predicted(backend)
    assert backend.stages[-1] == "text_encoder"
    with backend.randomized("text_encoder"):
        random = predicted(backend)
    assert random.isfinite().all()
    assert not torch.allclose(random, before)
    assert torch.equal(predicted(backend), before)


def of_no_layer(pipe: StableDiffusionPipeline) -> None:
    pipe.unet.mid_block.register_parameter("own", torch.nn.Parameter(torch.ones(2)))


def elsewhere(pipe: StableDiffusionPipeline) -> None:
    pipe.unet.mid_block.resnets[0].to("meta")


def quantised(pipe: StableDiffusionPipeline) -> None:
    conv = pipe.unet.conv_in
    conv.weight = torch.nn.Parameter(conv.weight.to(torch.int8), requires_grad=False)


@pytest.mark.parametrize("spoil", [of_no_layer, elsewhere, quantised])
def test_what_cannot_be_randomised_is_said(
    fresh_pipe: StableDiffusionPipeline, spoil: Callable[[StableDiffusionPipeline], None]
) -> None:
    backend = TorchBackend(fresh_pipe)
    assert "randomized" in backend.capabilities
    with pytest.raises(ValueError, match=r"no stage 'up_blocks'; there are conv_out, up_blocks\.3"):
        backend.randomized("up_blocks")
    spoil(fresh_pipe)
    assert "randomized" not in backend.capabilities
    with pytest.raises(MissingCapabilityError, match="needs randomized"):
        backend.randomized("conv_in")
