"""Ways in which people run pipelines: maps are right, or it is said why there are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wordlight import trace
from wordlight.attribution import DAAM
from wordlight.backends import AttentionQuery
from wordlight.backends.backend import Conditioning, MissingCapabilityError
from wordlight.backends.testing import checks
from wordlight.backends.testing.subject import Subject
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.text_encoding import earlier_layers
from wordlight.backends.torch.tiny import build_tiny, draw_tiny, picture, upper_half
from wordlight.backends.torch.tiny.as_run import OTHERS

PROMPT = "a red circle"
APART = AttentionQuery(keep=("step",))


def run_as(family: str, way: str, **call: Any) -> tuple[Any, Any]:
    """The pipeline and the trace of a tiny pipeline run in some way."""
    pipe, needed = OTHERS[way](build_tiny(family), picture(), upper_half())
    given = {"prompt": PROMPT, **needed, **call}
    with trace(pipe, APART) as run:
        draw_tiny(family, pipe, given.pop("prompt"), **given)
    return pipe, run


def check_replay(pipe: Any, run: Any) -> None:
    (trajectory,), (streamed,) = run.trajectories, run.attention
    steps = tuple(range(trajectory.steps))
    replayed = TorchBackend(pipe).attention(trajectory, APART, steps)
    for own, again in zip(streamed.means, replayed.means, strict=True):
        # Float32 rounding of batches of other sizes.
        np.testing.assert_allclose(again.values, own.values, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "encoder"),
    [("sd", "text_encoder"), ("sdxl", "text_encoder"), ("flux-dev", "text_encoder_2")],
)
def test_all_vectors_of_a_learned_word_are_its_tokens(family: str, encoder: str) -> None:
    pipe, _ = OTHERS["textual inversion"](build_tiny(family), None, None)
    seen: list[torch.Tensor] = []
    handle = getattr(pipe, encoder).register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(args[0] if args else kwargs["input_ids"]),
        with_kwargs=True,
    )
    with trace(pipe) as run:
        draw_tiny(family, pipe, "a red <thing> and a <thing>")
    handle.remove()
    tokens = run.trajectories[0].tokens
    assert any(tuple(ids[-1].tolist()) == tokens.ids for ids in seen)
    first, second = (slice(6, 13), slice(20, 27))
    spans = [tokens.offsets[place] for place in tokens.positions("text")]
    assert spans.count((6, 13)) == spans.count((20, 27)) == 2
    maps = DAAM.from_trace(run)
    assert [tokens.prompt[s] for s in (first, second)] == ["<thing>", "<thing>"]
    words = [word for word in maps.words if word.text == "<thing>"]
    assert [len(word.tokens) for word in words] == [2, 2]


def test_a_learned_word_that_is_not_written_out_is_refused() -> None:
    """Stable Diffusion 3's pipelines don't write further vectors."""
    pipe = build_tiny("sd3")
    for tokenizer in (pipe.tokenizer, pipe.tokenizer_2, pipe.tokenizer_3):
        tokenizer.add_tokens(["<thing>", "<thing>_1"])
    with pytest.raises(ValueError, match="a textual-inversion word of several vectors"):
        TorchBackend(pipe).tokenize("a red <thing>")


@pytest.mark.parametrize(
    ("family", "way"),
    [
        ("sdxl", "clip_skip"),
        ("sd", "guidance_rescale"),
        ("sd", "perturbed attention"),
        ("sdxl", "T2I-Adapter"),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in (
                ("sdxl", "perturbed attention"),
                ("sd3", "perturbed attention"),
                ("pixart-sigma", "perturbed attention"),
                ("sd", "T2I-Adapter"),
            )
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:The decode_latents method is deprecated:FutureWarning")
def test_the_replay_is_the_run(family: str, way: str) -> None:
    pipe, run = run_as(family, way)
    check_replay(pipe, run)


def test_clip_skip_of_stable_diffusion_1_by_a_name_of_before() -> None:
    """Diffusers' own call fails with this transformers; its error says what helps."""
    pipe = build_tiny("sd")

    def draw() -> Any:
        with trace(pipe, APART) as run:
            pipe("a red circle", clip_skip=1, num_inference_steps=1, output_type="latent")
        return run

    with pytest.raises(AttributeError, match="text_model") as caught:
        draw()
    (note,) = caught.value.__notes__
    assert "vars(pipe.text_encoder)['text_model'] = pipe.text_encoder" in note
    vars(pipe.text_encoder)["text_model"] = pipe.text_encoder
    run = draw()
    check_replay(pipe, run)
    ids = torch.tensor([TorchBackend(pipe).tokenize("a red circle").ids])
    wanted = earlier_layers(pipe.text_encoder, ids)[0]
    assert np.abs(run.trajectories[0].embeddings - wanted.numpy()).max() < 1e-6


def test_perturbed_attention_without_the_models_norms_is_not_replayed() -> None:
    """Diffusers' processors of it norm no queries and keys, which Stable Diffusion 3.5 does."""
    pipe, run = run_as("sd3.5", "perturbed attention")
    assert DAAM.from_trace(run)["circle"].shape == (16, 32)
    with pytest.raises(ValueError, match=r"can't be replayed .*leave out the norms"):
        DAAM(TorchBackend(pipe)).attribute(run.trajectories[0])


@pytest.mark.parametrize("family", ["pixart-sigma"])
def test_processors_of_perturbed_attention_are_gone_after_the_run(family: str) -> None:
    """Also of the pipeline's run up to its denoiser, which encodes the empty prompt."""
    pipe, _ = OTHERS["perturbed attention"](build_tiny(family), None, None)
    before = dict(pipe.transformer.attn_processors)
    with trace(pipe) as run:
        draw_tiny(family, pipe, PROMPT, pag_scale=3.0, guidance_scale=5.0)
    assert run.trajectories[0].steps == 2
    after = pipe.transformer.attn_processors
    assert all(after[name] is before[name] for name in before)


@pytest.mark.parametrize("family", ["sd", "flux-schnell", "sd3"])
def test_own_sigmas_are_the_noise_levels(family: str) -> None:
    """Also when the scheduler has gone on to others: the step that was taken is the one that the
    prediction and the levels lead to."""
    pipe, run = run_as(family, "sigmas", guidance_scale=0.0 if family == "flux-schnell" else 1.0)
    backend, (trajectory,) = TorchBackend(pipe), run.trajectories
    # Euler's sampler takes the last one for where it ends.
    assert trajectory.steps == (2 if family == "sd" else 3)
    checks.takes_the_steps_that_it_predicts(_GivenAlone(backend, trajectory))
    levels = [backend.noise_level(float(time)) for time in trajectory.timesteps]
    draw_tiny(family, pipe, PROMPT, num_inference_steps=4)
    later = [backend.noise_level(float(time)) for time in trajectory.timesteps]
    # Between two of a UNet's whole timesteps a scheduler interpolates.
    np.testing.assert_allclose(later, levels, rtol=1e-3)
    check_replay(pipe, run)


class _GivenAlone(Subject):
    """A backend whose one run is the given one."""

    def has(self, *capabilities: str) -> bool:
        return "sample" not in capabilities and super().has(*capabilities)


@pytest.mark.parametrize("family", ["sd", "flux-dev"])
def test_a_run_that_a_callback_stops_has_the_steps_that_it_took(family: str) -> None:
    pipe, run = run_as(family, "stopped")
    (trajectory,) = run.trajectories
    assert trajectory.steps == 2
    with trace(pipe, APART) as whole:
        draw_tiny(family, pipe, PROMPT, num_inference_steps=3)
    np.testing.assert_array_equal(trajectory.latents, whole.trajectories[0].latents[:2])
    first = [mean for mean in whole.attention[0].means if mean.step in (0, 1)]
    for own, other in zip(run.attention[0].means, first, strict=True):
        np.testing.assert_array_equal(own.values, other.values)
    check_replay(pipe, run)


# Quantised weights, as they look to PyTorch.


class Int8Weight(torch.Tensor):
    """A weight that is kept in bytes and unpacked where it is used, as torchao's are."""

    @staticmethod
    def __new__(cls, packed: torch.Tensor, scale: torch.Tensor) -> Int8Weight:
        made: Int8Weight = torch.Tensor._make_wrapper_subclass(cls, packed.shape, dtype=scale.dtype)
        made.packed, made.scale = packed, scale
        return made

    packed: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(cls, weight: torch.Tensor) -> Int8Weight:
        scale = weight.detach().abs().amax(1, keepdim=True) / 127
        return cls((weight.detach() / scale).round().to(torch.int8), scale)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.linear:
            inputs, weight, *rest = args
            return F.linear(inputs, weight.packed.to(inputs.dtype) * weight.scale, *rest)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].packed, args[0].scale)
        raise NotImplementedError(f"no {func} of packed weights")


def packed(module: torch.nn.Module) -> None:
    """Pack the weights of a module's linear layers."""
    for part in module.modules():
        if type(part) is torch.nn.Linear:
            part.weight = torch.nn.Parameter(Int8Weight.of(part.weight), requires_grad=False)


@torch.library.custom_op("wordlight_test::gemm", mutates_args=())
def gemm(inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A kernel of a library, without rules for derivatives."""
    return inputs @ weight.T


class KernelLinear(torch.nn.Module):
    """A linear layer that computes with such a kernel, as bitsandbytes' are."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        made = gemm(inputs, self.weight)
        return made if self.bias is None else made + self.bias


def with_kernels(module: torch.nn.Module, kind: type[torch.nn.Module]) -> None:
    for child_name, child in list(module.named_children()):
        if type(child) is torch.nn.Linear and child_name in ("to_k", "to_v"):
            setattr(module, child_name, kind(child))
        else:
            with_kernels(child, kind)


def traced(family: str, pipe: Any) -> tuple[TorchBackend, Any, tuple[Any, float, Conditioning]]:
    backend = TorchBackend(pipe)
    with backend.trace(APART) as run:
        draw_tiny(family, pipe, PROMPT)
    (trajectory,) = run.trajectories
    told = Conditioning(
        backend.asarray(trajectory.embeddings[None]), backend.step_conditioning(trajectory, 1)
    )
    latents = backend.asarray(trajectory.latents[1][None])
    return backend, run, (latents, float(trajectory.timesteps[1]), told)


@pytest.mark.parametrize("family", ["sd", "flux-schnell"])
def test_weights_that_are_unpacked_where_they_are_used(family: str) -> None:
    pipe = build_tiny(family)
    module = pipe.unet if family == "sd" else pipe.transformer
    packed(module)
    backend, run, _ = traced(family, pipe)
    check_replay(pipe, run)
    subject = _GivenAlone(backend, run.trajectories[0])
    checks.forward_mode_gives_slopes(subject)
    checks.reverse_mode_transposes_forward_mode(subject)
    assert run.trajectories[0].weights is None
    assert "randomized" not in backend.capabilities
    with pytest.raises(MissingCapabilityError, match="randomized"):
        backend.randomized(backend.stages[0])


def test_kernels_that_forward_mode_takes_for_constants_are_refused() -> None:
    """PyTorch gives zeros for their changes, without a word."""
    pipe = build_tiny("sd")
    with_kernels(pipe.unet, KernelLinear)
    backend, run, point = traced("sd", pipe)
    check_replay(pipe, run)
    with torch.no_grad():
        assert backend.denoise(*point).isfinite().all()
    with pytest.raises(MissingCapabilityError, match=r"wordlight_test\.gemm.*no forward-mode rule"):
        backend.denoise_jvp(*point, torch.ones_like(point[2].embeddings))


def test_layers_of_bitsandbytes_have_no_forward_mode() -> None:
    kind = type("Linear4bit", (KernelLinear,), {"__module__": "bitsandbytes.nn.modules"})
    pipe = build_tiny("sd")
    with_kernels(pipe.unet, kind)
    backend, run, point = traced("sd", pipe)
    check_replay(pipe, run)
    assert not {"denoise_jvp", "denoise_parts"} & backend.capabilities
    with pytest.raises(MissingCapabilityError, match="bitsandbytes quantised have no rule"):
        backend.denoise_jvp(*point, torch.ones_like(point[2].embeddings))
