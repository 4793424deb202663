"""The text encoder from its input on, noise levels, and pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from tests.backends.torch.test_tracing import hooks_of
from tests.backends.torch.tiny import build_tiny_pipe
from wordlight.attribution import IntegratedGradients
from wordlight.backends import load
from wordlight.backends.backend import MissingCapabilityError
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.tiny import build_tiny

PROMPT = "a red circle and two blue triangles"


@pytest.fixture(scope="module")
def exact() -> TorchBackend:
    """In float64, where differences of derivatives are those of the mathematics."""
    return TorchBackend(build_tiny_pipe("v_prediction").to(torch.float64))


def differences(
    function: Callable[[torch.Tensor], torch.Tensor], point: torch.Tensor, tangents: torch.Tensor
) -> torch.Tensor:
    """Central differences along each tangent."""
    step = 1e-6
    ahead, behind = function(point + step * tangents), function(point - step * tangents)
    return (ahead - behind) / (2 * step)


@pytest.mark.parametrize("model", ["tiny", "scenes"])
def test_encoding_from_the_input_is_encoding(backend: TorchBackend, model: str) -> None:
    there = backend if model == "tiny" else load("scenes", device="cpu")
    prompts = [PROMPT, ""]
    for prompt in prompts:
        embeddings = there.token_embeddings(prompt)
        assert embeddings.shape == (len(there.tokenize(prompt)), embeddings.shape[1])
        # The same operations on the same numbers: nothing is rounded otherwise.
        wanted = there.encode([prompt]).embeddings
        assert torch.equal(there.encode_from(embeddings[None]).embeddings, wanted)
    both = torch.stack([there.token_embeddings(prompt) for prompt in prompts])
    states = there.encode_from(both).embeddings
    # Rows of one batch don't mix; float32 rounding of values of size 1.
    assert (states - there.encode(prompts).embeddings).abs().max() < 1e-5
    assert (states[0] - states[1]).abs().max() > 0.1


def test_later_words_are_not_seen_by_earlier_ones(exact: TorchBackend) -> None:
    """The causal mask is in place: a tangent at one position moves it and what follows."""
    point = exact.token_embeddings(PROMPT)[None]
    tangent = torch.zeros_like(point)
    tangent[:, 4] = 1e-2 * torch.randn(point.shape[-1], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        _, changes = exact.encode_from_jvp(point, tangent)
    assert (changes[0, :4] == 0).all()
    assert (changes[0, 4:].abs().amax(-1) > 0).all()


def test_forward_and_reverse_mode_through_the_encoder(exact: TorchBackend) -> None:
    generator = torch.Generator().manual_seed(0)
    point = exact.token_embeddings(PROMPT).detach()[None]
    tangents, cotangent = (
        torch.randn(rows, *point.shape[1:], dtype=torch.float64, generator=generator)
        for rows in (5, 1)
    )
    with torch.no_grad():
        conditioning, changes = exact.encode_from_jvp(point, tangents)
        wanted = differences(lambda p: exact.encode_from(p).embeddings, point, tangents)
    assert torch.allclose(conditioning.embeddings, exact.encode([PROMPT]).embeddings)
    assert not changes.requires_grad
    # Central differences: step² times a third derivative that layer norms of small embeddings
    # (0.02) make large, and rounding / step.
    assert (changes - wanted).norm() / wanted.norm() < 1e-7
    inputs = point.clone().requires_grad_()
    states = exact.encode_from(inputs).embeddings
    (gradient,) = torch.autograd.grad((states * cotangent).sum(), inputs)
    ahead = (changes * cotangent).sum((1, 2))
    back = (tangents * gradient).sum((1, 2))
    # ⟨v, Ju⟩ = ⟨Jᵀv, u⟩: float64 rounding of some thousand terms.
    assert torch.allclose(ahead, back, rtol=1e-10)


def test_the_encoder_is_left_as_it_was(backend: TorchBackend) -> None:
    before = hooks_of(backend.pipe)
    backend.encode_from(backend.token_embeddings(PROMPT)[None])
    with pytest.raises(ValueError, match=r"must be \(batch, up to 32 tokens, 24 channels\)"):
        backend.encode_from(torch.zeros(1, 32, 23))
    with pytest.raises(ValueError, match=r"up to 32 tokens"):
        backend.encode_from(torch.zeros(1, 33, 24))
    with pytest.raises(ValueError, match="one row at a time"):
        backend.encode_from_jvp(torch.zeros(2, 32, 24), torch.zeros(1, 32, 24))
    assert hooks_of(backend.pipe) == before
    table = backend.pipe.text_encoder.get_input_embeddings()
    final = backend.pipe.text_encoder.final_layer_norm

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    handle = final.register_forward_pre_hook(fail)
    try:
        with pytest.raises(ZeroDivisionError):
            backend.encode_from(torch.zeros(1, 32, 24))
    finally:
        handle.remove()
    assert not table._forward_hooks


@pytest.mark.parametrize("family", ["sdxl", "sdxl-refiner"])
def test_encoders_side_by_side_are_run_from_their_inputs(family: str) -> None:
    """Stable Diffusion XL's, whose tokenizers pad otherwise; the refiner has the second alone."""
    joined = TorchBackend(build_tiny(family).to(torch.float64))
    with joined.no_gradients():
        both = torch.stack([joined.token_embeddings(text) for text in (PROMPT, "")])
        wanted = joined.encode([PROMPT, ""]).embeddings
        torch.testing.assert_close(joined.encode_from(both).embeddings, wanted)
        point, tangents = both[:1], torch.randn(2, *both.shape[1:], dtype=torch.float64)
        _, changes = joined.encode_from_jvp(point, tangents)
        slopes = differences(lambda p: joined.encode_from(p).embeddings, point, tangents)
    # Central differences, as above.
    assert (changes - slopes).norm() / slopes.norm() < 1e-7
    with pytest.raises(ValueError, match=r"must be \(batch, tokens, \d+ channels\)"):
        joined.encode_from(point[..., 1:])


@pytest.mark.slow
def test_tokens_of_two_encoders_are_explained() -> None:
    """At the encoders' inputs the shares of all players still add up to the push."""
    joined = TorchBackend(build_tiny("sdxl"))
    # 8, 16, 32 and 64 nodes are 13, 3, 0.8 and 0.03 % off.
    method = IntegratedGradients(joined, steps=1, n_steps=32, wrt="tokens")
    run = joined.sample("a red circle", seed=0, steps=2, height=32, width=32)
    _, delta = method.attribute(run, return_convergence_delta=True)
    assert delta.error < 0.02


def test_an_encoder_that_masks_padding_is_refused(fresh_pipe: StableDiffusionPipeline) -> None:
    fresh_pipe.text_encoder.config.use_attention_mask = True
    masked = TorchBackend(fresh_pipe)
    assert "encode_from" not in masked.capabilities
    with pytest.raises(MissingCapabilityError, match="needs encode_from"):
        masked.token_embeddings(PROMPT)


def test_learned_words_of_several_vectors_have_their_input(
    fresh_pipe: StableDiffusionPipeline,
) -> None:
    """Written out as the pipeline writes them: through the encoder it is the pipeline's text."""
    fresh_pipe.tokenizer.add_tokens(["<cat>", "<cat>_1"])
    fresh_pipe.text_encoder.resize_token_embeddings(len(fresh_pipe.tokenizer))
    backend, prompt = TorchBackend(fresh_pipe), "a <cat> and a dog"
    own, _ = fresh_pipe.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)
    with backend.no_gradients():
        found = backend.encode_from(backend.token_embeddings(prompt)[None]).embeddings
        short = backend.encode_from(backend.token_embeddings("a cat and a dog")[None]).embeddings
    torch.testing.assert_close(found, own)
    assert not torch.allclose(short, own)


def test_noise_levels_are_the_scheduler_s(backend: TorchBackend) -> None:
    clean, noise = torch.randn(2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    for time in (1, 400, 999):
        alpha, sigma = backend.noise_level(time)
        wanted = backend.pipe.scheduler.add_noise(clean, noise, torch.tensor([time]))
        # The scheduler's table is float32.
        assert (alpha * clean + sigma * noise - wanted).abs().max() < 1e-5


def test_pixels_are_the_pipeline_s(backend: TorchBackend) -> None:
    """The last latents of a run, decoded, are the image that the pipeline gave."""
    generator = torch.Generator().manual_seed(3)
    options = {"num_inference_steps": 2, "height": 40, "width": 64, "num_images_per_prompt": 2}
    latents, image = (
        backend.pipe(PROMPT, generator=generator.manual_seed(3), output_type=kind, **options).images
        for kind in ("latent", "np")
    )
    with torch.no_grad():
        pixels = backend.decode(latents)
    assert pixels.shape == (2, 3, 40, 64)
    shown = np.clip(backend.to_numpy(pixels).transpose(0, 2, 3, 1), 0, 1)
    # float32 rounding, through a division instead of a product.
    assert np.abs(shown - image).max() < 1e-5
    assert not pixels.requires_grad
    assert (pixels < 0).any()
    made = backend.images_of(latents)
    assert len(made) == 2
    assert (made[1] == np.rint(shown[1] * 255)).all()


def test_forward_and_reverse_mode_through_the_decoder(exact: TorchBackend) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(rows: int) -> torch.Tensor:
        return torch.randn(rows, 4, 8, 12, dtype=torch.float64, generator=generator)

    # Nine directions, more than are computed at once.
    point, tangents = draw(1), draw(9)
    with torch.no_grad():
        pixels, changes = exact.decode_jvp(point, tangents)
        assert torch.allclose(pixels, exact.decode(point))
        wanted = differences(exact.decode, point, tangents)
    # Central differences: step² times the third derivative, and rounding / step.
    assert (changes - wanted).norm() / wanted.norm() < 1e-8
    cotangent = torch.randn(pixels.shape, dtype=torch.float64, generator=generator)
    inputs = point.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((exact.decode(inputs) * cotangent).sum(), inputs)
    # ⟨v, Ju⟩ = ⟨Jᵀv, u⟩: float64 rounding.
    ahead = (changes * cotangent).sum((1, 2, 3))
    assert torch.allclose(ahead, (tangents * gradient).sum((1, 2, 3)), rtol=1e-10)
    with pytest.raises(ValueError, match="one row at a time"):
        exact.decode_jvp(draw(2), tangents)
