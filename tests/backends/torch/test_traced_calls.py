"""Whose calls a trace is of, what it says where it can't tell, and what it replays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import cpu_offload
from diffusers import (
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPanoramaPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from diffusers.models.attention_processor import AttnProcessor, SlicedAttnProcessor
from diffusers.models.embeddings import ImageProjection
from peft import LoraConfig
from PIL import Image

from tests.backends.torch.test_tracing import PROMPT, draw, hooks_of
from tests.backends.torch.tiny import build_tiny_pipe
from wordlight.attribution import DAAM, AttentionXGradient, InputXGradient, OpenVocabulary
from wordlight.backends import trace
from wordlight.backends.backend import MissingCapabilityError
from wordlight.backends.torch import attention_calls, recorder
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.forward_mode import forward_products
from wordlight.backends.torch.taps import AttentionTap
from wordlight.backends.torch.tiny import build_tiny, draw_tiny


def with_parts(kind: type, pipe: StableDiffusionPipeline, **parts: Any) -> Any:
    made = kind(**{**pipe.components, **parts}, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def picture(side: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def test_another_pipeline_of_the_same_parts_is_none_of_it(
    shared_pipe: StableDiffusionPipeline,
) -> None:
    second = with_parts(StableDiffusionImg2ImgPipeline, shared_pipe)

    def inside(_pipe: Any, _step: int, _time: Any, _kwargs: Any) -> dict[str, Any]:
        second(PROMPT, image=picture(32), strength=1.0, num_inference_steps=1)
        return {}

    with trace(shared_pipe) as alone:
        draw(shared_pipe)
    with trace(shared_pipe) as both:
        draw(shared_pipe, callback_on_step_end=inside)
        second(PROMPT, image=picture(32), strength=1.0, num_inference_steps=3)
    (trajectory,) = both.trajectories
    assert trajectory.steps == 2
    assert (DAAM.from_trace(alone).data == DAAM.from_trace(both).data).all()


def test_threads_that_share_a_unet(shared_pipe: StableDiffusionPipeline) -> None:
    """One is traced; the other isn't, dies of nothing and is seen by nobody."""
    other = with_parts(StableDiffusionPipeline, shared_pipe)
    wanted, errors = draw(other), []

    def untraced() -> None:
        try:
            for _ in range(3):
                assert (draw(other) == wanted).all()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=untraced)
    thread.start()
    for _ in range(3):
        with trace(shared_pipe) as traced:
            draw(shared_pipe)
        assert traced.trajectories[0].steps == 2
    thread.join()
    assert not errors


def test_traces_that_end_in_another_order(shared_pipe: StableDiffusionPipeline) -> None:
    before = hooks_of(shared_pipe)
    first, second = trace(shared_pipe), trace(shared_pipe)
    first.__enter__()
    second.__enter__()
    draw(shared_pipe)
    first.__exit__(None, None, None)
    draw(shared_pipe)
    second.__exit__(None, None, None)
    assert hooks_of(shared_pipe) == before
    assert (len(first.trajectories), len(second.trajectories)) == (1, 2)


def test_a_cancelled_run_and_a_good_one(shared_pipe: StableDiffusionPipeline) -> None:
    before = hooks_of(shared_pipe)

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    with trace(shared_pipe) as traced:
        with pytest.raises(KeyboardInterrupt):
            draw(shared_pipe, callback_on_step_end=stop)
        with pytest.raises(ValueError, match="ended early"):
            _ = traced.trajectories
        draw(shared_pipe, "a green square")
        # Inside the block, too.
        assert [t.prompt for t in traced.trajectories] == ["a green square"]
    assert hooks_of(shared_pipe) == before


def test_an_interrupt_inside_attention_leaves_no_mode(
    fresh_pipe: StableDiffusionPipeline,
) -> None:
    before = hooks_of(fresh_pipe)

    class Interrupted(AttnProcessor):
        def __call__(self, attn: Any, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
            raise KeyboardInterrupt

    fresh_pipe.unet.set_attn_processor(Interrupted())
    with pytest.raises(KeyboardInterrupt), trace(fresh_pipe):
        draw(fresh_pipe)
    assert hooks_of(fresh_pipe) == before


def test_a_pipeline_that_draws_twice_in_a_call(shared_pipe: StableDiffusionPipeline) -> None:
    class Twice(StableDiffusionPipeline):
        times = 1

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            for _ in range(self.times):
                found = super().__call__(*args, **kwargs)
            return found

    pipe = with_parts(Twice, shared_pipe)
    with trace(pipe) as once:
        draw(pipe)
    with trace(shared_pipe) as plain:
        draw(shared_pipe)
    assert (DAAM.from_trace(once).data == DAAM.from_trace(plain).data).all()
    pipe.times = 2
    with trace(pipe) as twice:
        draw(pipe)
    with pytest.raises(ValueError, match="it draws several times, and gives one"):
        DAAM.from_trace(twice)


def test_a_trace_that_listens_is_not_entered_again(shared_pipe: StableDiffusionPipeline) -> None:
    traced = trace(shared_pipe)
    with traced, pytest.raises(ValueError, match="listens already"):
        traced.__enter__()
    with traced:
        draw(shared_pipe)
    assert len(traced.trajectories) == 1


def pad_round(pipe: StableDiffusionPipeline) -> None:
    """As for textures that can be tiled."""
    for part in pipe.unet.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.padding_mode = "circular"


def clamp(pipe: StableDiffusionPipeline) -> None:
    pipe.unet.mid_block.resnets[0].nonlinearity = torch.nn.ReLU()


def norm_less(pipe: StableDiffusionPipeline) -> None:
    pipe.unet.conv_norm_out.eps = 0.5


@pytest.mark.parametrize("change", [pad_round, clamp, norm_less])
def test_other_settings_of_layers_are_refused(change: Callable[[Any], None]) -> None:
    pipe = build_tiny_pipe(levels=2, layers=1)
    trajectory = TorchBackend(pipe).sample(PROMPT, seed=0, steps=1)
    change(pipe)
    with pytest.raises(ValueError, match="how layers pad and norm"):
        DAAM(TorchBackend(pipe)).attribute(trajectory)
    # A digest of before has no word of it.
    assert trajectory.weights is not None
    old = replace(trajectory, weights=trajectory.weights.rpartition(":")[0])
    DAAM(TorchBackend(pipe)).attribute(old)


def by_adapters(pipe: Any, *_: Any) -> dict[str, Any]:
    pipe.unet.disable_adapters()
    return {}


def by_a_new_adapter(pipe: Any, step: int, *_: Any) -> dict[str, Any]:
    if step == 0:
        pipe.unet.add_adapter(LORA)
    return {}


def in_place(pipe: Any, *_: Any) -> dict[str, Any]:
    with torch.no_grad():
        pipe.unet.conv_in.weight.mul_(1.5)
    return {}


LORA = LoraConfig(r=2, lora_alpha=16, init_lora_weights=False, target_modules=["to_q", "to_k"])


@pytest.mark.parametrize("switch", [by_adapters, by_a_new_adapter, in_place])
def test_weights_that_are_switched_between_steps(switch: Callable[..., Any]) -> None:
    pipe = build_tiny_pipe(levels=2, layers=1)
    if switch is by_adapters:
        pipe.unet.add_adapter(LORA)
    with trace(pipe) as plain:
        draw(pipe)
    assert plain.trajectories[0].not_replayable is None
    with trace(pipe) as traced:
        draw(pipe, callback_on_step_end=switch)
    DAAM.from_trace(traced)
    with pytest.raises(ValueError, match="weights or adapters of the denoiser were changed"):
        DAAM(TorchBackend(pipe)).attribute(traced.trajectories[0])


@pytest.mark.parametrize("changed", ["freeu", "prediction", "processor"])
def test_other_computations_of_the_same_weights_are_refused(changed: str) -> None:
    class Louder(AttnProcessor):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs) * 2

    pipe = build_tiny_pipe()
    trajectory = TorchBackend(pipe).sample(PROMPT, seed=0, steps=1)
    if changed == "freeu":
        pipe.enable_freeu(s1=0.2, s2=0.2, b1=1.9, b2=1.9)
    elif changed == "prediction":
        config = pipe.scheduler.config
        pipe.scheduler = DDIMScheduler.from_config(config, prediction_type="v_prediction")
    else:
        pipe.unet.set_attn_processor(Louder())
    with pytest.raises(ValueError, match=r"FreeU, attention processors, .* what the scheduler"):
        DAAM(TorchBackend(pipe)).attribute(trajectory)
    DAAM(TorchBackend(pipe)).attribute(replace(trajectory, weights=None))


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (attention_calls, "of_torch"),
        (AttentionTap, "_compute"),
        (recorder, "same_call"),
        (recorder._Running, "close"),
    ],
)
def test_an_error_in_listening_never_reaches_the_call(
    shared_pipe: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    """It is raised where maps are asked for."""
    wanted, working = draw(shared_pipe), getattr(owner, name)
    calls = []

    def fails_at_the_second_call(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        found = working(*args, **kwargs)
        if len(calls) == last:
            raise RuntimeError("out of memory")
        return found

    last = 1 if name == "close" else 2
    monkeypatch.setattr(owner, name, fails_at_the_second_call)
    with trace(shared_pipe) as traced:
        assert (draw(shared_pipe) == wanted).all()
    monkeypatch.undo()
    assert calls
    for asked in (lambda: traced.attention, lambda: traced.trajectories):
        with pytest.raises(ValueError, match="can't be explained: RuntimeError: out of memory"):
            asked()
    assert not hooks_of(shared_pipe)
    assert (draw(shared_pipe) == wanted).all()


def test_attention_may_be_watched_while_it_forms(shared_pipe: StableDiffusionPipeline) -> None:
    with trace(shared_pipe) as quietly:
        draw(shared_pipe, num_inference_steps=3)
    with trace(shared_pipe) as watched:

        def look(*_: Any) -> dict[str, Any]:
            counts.append(watched.attention[0].means[0].count)
            return {}

        counts: list[int] = []
        draw(shared_pipe, num_inference_steps=3, callback_on_step_end=look)
    assert counts == [counts[0], 2 * counts[0], 3 * counts[0]]
    assert (DAAM.from_trace(quietly).data == DAAM.from_trace(watched).data).all()


def test_words_switched_on_the_way(shared_pipe: StableDiffusionPipeline) -> None:
    with torch.no_grad():
        other = torch.cat(shared_pipe.encode_prompt("two green squares", "cpu", 1, True)[::-1])

    def switch(*_: Any) -> dict[str, Any]:
        return {"prompt_embeds": other}

    with trace(shared_pipe) as traced:
        draw(
            shared_pipe,
            callback_on_step_end=switch,
            callback_on_step_end_tensor_inputs=["prompt_embeds"],
        )
    with pytest.raises(ValueError, match="embeddings changed between steps"):
        DAAM.from_trace(traced)


def test_embeddings_that_are_changed_in_place(shared_pipe: StableDiffusionPipeline) -> None:
    def stress(_pipe: Any, step: int, _time: Any, given: dict[str, Any]) -> dict[str, Any]:
        if step == 0:
            given["prompt_embeds"][-1, 3] *= 1.3
        return {}

    asked = {"callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    with trace(shared_pipe) as traced:
        draw(shared_pipe, callback_on_step_end=stress, **asked)
    with pytest.raises(ValueError, match="embeddings changed between steps"):
        DAAM.from_trace(traced)
    with trace(shared_pipe) as untouched:
        draw(shared_pipe, callback_on_step_end=lambda *_: {}, **asked)
    DAAM.from_trace(untouched)


def without_a_token(pipe: StableDiffusionPipeline) -> None:
    class Edit(AttnProcessor):
        def __call__(
            self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, **kwargs: Any
        ) -> Any:
            own = attn.get_attention_scores

            def edited(*given: Any) -> torch.Tensor:
                probs = own(*given).clone()
                if encoder_hidden_states is not None:
                    probs[..., 3] = 0
                return probs

            attn.get_attention_scores = edited
            try:
                return super().__call__(attn, hidden_states, encoder_hidden_states, **kwargs)
            finally:
                del attn.get_attention_scores

    pipe.unet.set_attn_processor(Edit())


def test_edited_probabilities_are_those_that_were_used(
    fresh_pipe: StableDiffusionPipeline,
) -> None:
    without_a_token(fresh_pipe)
    with trace(fresh_pipe) as traced:
        draw(fresh_pipe)
    maps = DAAM.from_trace(traced)
    assert maps["circle"].word.tokens == (3,)
    assert np.asarray(maps["circle"]).max() == 0
    assert np.asarray(maps["red"]).max() > 0


class Several:
    """A user's processor that attends twice, by turns as PyTorch does or by hand."""

    def __init__(self, *ways: str) -> None:
        self.ways = ways

    def __call__(
        self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, **_: Any
    ) -> torch.Tensor:
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        parts = (attn.to_q(hidden_states), attn.to_k(text), attn.to_v(text))
        query, key, value = (part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in parts)
        ways = self.ways if encoder_hidden_states is not None else ("pytorch",)
        made = sum(self.attend(way, query, key, value) for way in ways) / len(ways)
        assert isinstance(made, torch.Tensor)
        out: torch.Tensor = attn.to_out[0](made.transpose(1, 2).flatten(2))
        return out

    def attend(self, way: str, *parts: torch.Tensor) -> torch.Tensor:
        query, key, value = parts
        if way == "pytorch":
            return F.scaled_dot_product_attention(query, key, value)
        if way == "rows":
            each = zip(query, key, value, strict=True)
            return torch.stack([F.scaled_dot_product_attention(*one) for one in each])
        probs = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
        if way == "otherwise":  # What was seen isn't what is used.
            _, probs = probs @ value, torch.full_like(probs, 1 / probs.shape[-1])
        return probs @ value


@pytest.mark.parametrize(
    ("ways", "told"),
    [
        (("pytorch", "pytorch"), "attends several times to the same keys"),
        (("by hand", "by hand"), "attends several times to the same keys"),
        (("pytorch", "by hand"), "attends several times to the same keys"),
        (("by hand", "pytorch"), "attends several times to the same keys"),
        (("otherwise",), "attends several times to the same keys"),
        (("rows",), "can be told apart"),
    ],
)
def test_a_processor_that_attends_several_times_is_refused(ways: Any, told: str) -> None:
    pipe = build_tiny_pipe(levels=2, layers=1)
    pipe.unet.set_attn_processor(Several(*ways))
    with trace(pipe) as traced:
        draw(pipe)
    with pytest.raises(ValueError, match=told):
        DAAM.from_trace(traced)


@pytest.mark.parametrize("way", ["pytorch", "by hand"])
def test_a_processor_that_attends_once_is_seen(way: str) -> None:
    pipe = build_tiny_pipe(levels=2, layers=1)
    with trace(pipe) as plain:
        draw(pipe)
    pipe.unet.set_attn_processor(Several(way))
    with trace(pipe) as traced:
        draw(pipe)
    gap = DAAM.from_trace(plain).data - DAAM.from_trace(traced).data
    assert np.abs(gap).max() < 1e-5


@pytest.mark.parametrize("make", [lambda: AttnProcessor(), lambda: SlicedAttnProcessor(3)])
def test_attention_written_out_or_in_slices(
    fresh_pipe: StableDiffusionPipeline, make: Callable[[], Any]
) -> None:
    with trace(fresh_pipe) as fused:
        draw(fresh_pipe)
    fresh_pipe.unet.set_attn_processor(make())
    with trace(fresh_pipe) as other:
        draw(fresh_pipe)
    gap = DAAM.from_trace(fused).data - DAAM.from_trace(other).data
    # Sums in another order: float32 rounding.
    assert np.abs(gap).max() < 1e-5


def test_a_lora_that_is_added_inside_the_block(fresh_pipe: StableDiffusionPipeline) -> None:
    config = LoraConfig(
        r=2, lora_alpha=16, init_lora_weights=False, target_modules=["to_q", "to_k"]
    )
    with trace(fresh_pipe) as traced:
        fresh_pipe.unet.add_adapter(config)
        draw(fresh_pipe)
    (trajectory,) = traced.trajectories
    backend = TorchBackend(fresh_pipe)
    replayed = DAAM(backend).attribute(trajectory)
    assert np.abs(DAAM.from_trace(traced).data - replayed.data).max() < 1e-5
    fresh_pipe.unet.disable_adapters()
    with pytest.raises(ValueError, match="other weights or adapters"):
        DAAM(backend).attribute(trajectory)


def test_a_kernel_of_diffusers_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """As flash, sage or xformers are, chosen by the dispatcher; here a stand-in."""
    pipe = build_tiny("flux-dev")
    pipe.set_progress_bar_config(disable=True)
    with trace(pipe) as native:
        draw_tiny("flux-dev", pipe, "a red circle")

    def kernel(query: Any, key: Any, value: Any, scale: Any = None, **_: Any) -> torch.Tensor:
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        scores = torch.einsum("bhqc,bhkc->bhqk", query, key) * (scale or query.shape[-1] ** -0.5)
        return torch.einsum(
            "bhqk,bhkc->bhqc", scores.exp() / scores.exp().sum(-1, True), value
        ).transpose(1, 2)

    name = AttentionBackendName.SAGE
    arguments = {"query", "key", "value", "attn_mask", "scale"}
    monkeypatch.setitem(_AttentionBackendRegistry._backends, name, kernel)
    monkeypatch.setitem(_AttentionBackendRegistry._supported_arg_names, name, arguments)
    monkeypatch.setattr(_AttentionBackendRegistry, "_active_backend", name)
    with trace(pipe) as stand_in:
        draw_tiny("flux-dev", pipe, "a red circle")
    assert _AttentionBackendRegistry._backends[name] is kernel
    one, other = (DAAM.from_trace(t).data for t in (native, stand_in))
    # Another kernel rounds otherwise.
    assert np.abs(one - other).max() < 1e-4 * float(one.max())


def test_compiled_denoisers(fresh_pipe: StableDiffusionPipeline) -> None:
    with trace(fresh_pipe) as plain:
        image = draw(fresh_pipe)
    fresh_pipe.unet = torch.compile(fresh_pipe.unet, backend="eager")
    with trace(fresh_pipe) as traced:
        assert (draw(fresh_pipe) == image).all()
    assert (DAAM.from_trace(plain).data == DAAM.from_trace(traced).data).all()


def test_words_that_do_not_fit_the_embeddings(shared_pipe: StableDiffusionPipeline) -> None:
    with torch.no_grad():
        states, away = shared_pipe.encode_prompt(PROMPT, "cpu", 1, True)
    given = {"prompt_embeds": states, "negative_prompt_embeds": away}
    with trace(shared_pipe, prompts=[PROMPT.replace("red", "(red:1.3)")]) as marked:
        draw(shared_pipe, None, **given)
    with pytest.raises(ValueError, match="don't fit the words"):
        DAAM.from_trace(marked)
    with trace(shared_pipe, prompts=["a dog"]) as other:
        draw(shared_pipe)
    with pytest.raises(ValueError, match="the pipeline was given the words"):
        DAAM.from_trace(other)
    swapped = "a blue circle and two red triangles"
    for words in (swapped, PROMPT.replace("triangles", "squares")):
        with trace(shared_pipe, prompts=[words]) as other:
            draw(shared_pipe, None, **given)
        with pytest.raises(ValueError, match="don't fit the words"):
            DAAM.from_trace(other)
    weighted = states.clone()
    weighted[:, 2] *= 1.4
    weighted[:, 5] += 0.3 * (away - states)[:, 5]
    with trace(shared_pipe, prompts=[PROMPT]) as fitting:
        draw(shared_pipe, None, **{**given, "prompt_embeds": weighted})
    DAAM.from_trace(fitting)
    with pytest.raises(ValueError, match="open-vocabulary encodes words as"):
        OpenVocabulary(TorchBackend(shared_pipe)).attribute(fitting.trajectories[0], ["green"])
    long = {name: torch.cat([value, value], 1) for name, value in given.items()}
    with trace(shared_pipe, prompts=[PROMPT]) as chunks:
        draw(shared_pipe, None, **long)
    with pytest.raises(ValueError, match="prompt_embeds of several chunks"):
        DAAM.from_trace(chunks)


def test_a_prompt_that_the_pipeline_writes_anew_is_refused() -> None:
    pipe = build_tiny("longcat-image")
    pipe.rewire_prompt = lambda prompt, _device: [f"{one} on a table" for one in prompt]
    with trace(pipe) as traced:
        draw_tiny("longcat-image", pipe, ["a cat"], enable_prompt_rewrite=True)
    with pytest.raises(ValueError, match="call it with enable_prompt_rewrite=False"):
        DAAM.from_trace(traced)


def test_a_crop_is_no_picture(shared_pipe: StableDiffusionPipeline) -> None:
    inpaint = with_parts(StableDiffusionInpaintPipeline, shared_pipe)
    mask = np.zeros((64, 64), np.uint8)
    mask[40:56, 40:56] = 255
    with trace(inpaint) as traced:
        inpaint(
            PROMPT,
            image=picture(64),
            mask_image=Image.fromarray(mask),
            num_inference_steps=2,
            height=64,
            width=64,
            padding_mask_crop=0,
        )
    with pytest.raises(ValueError, match="padding_mask_crop"):
        DAAM.from_trace(traced)


def test_a_unet_of_nine_channels(fresh_pipe: StableDiffusionPipeline) -> None:
    config = {**fresh_pipe.unet.config, "in_channels": 9, "out_channels": 4}
    unet = UNet2DConditionModel.from_config(config).eval()
    inpaint = with_parts(StableDiffusionInpaintPipeline, fresh_pipe, unet=unet)
    mask = Image.fromarray(
        np.where(np.arange(32) > 15, 255, 0).astype(np.uint8)[None].repeat(32, 0)
    )
    with trace(inpaint) as traced:
        inpaint(
            PROMPT, image=picture(32), mask_image=mask, num_inference_steps=2, height=32, width=32
        )
    (trajectory,) = traced.trajectories
    backend = TorchBackend(inpaint)
    assert (
        np.abs(DAAM.from_trace(traced).data - DAAM(backend).attribute(trajectory).data).max() < 1e-5
    )
    maps = AttentionXGradient(backend, steps=1).attribute(trajectory)
    assert np.asarray(maps["circle"]).max() > 0


def test_what_else_the_unet_was_told_is_told_again(fresh_pipe: StableDiffusionPipeline) -> None:
    """Residuals as a ControlNet adds them, of each step its own."""
    generator = torch.Generator().manual_seed(0)

    def tell(_unet: Any, args: Any, kwargs: Any) -> Any:
        residual = torch.randn(len(args[0]), 32, 2, 2, generator=generator)
        return args, {**kwargs, "mid_block_additional_residual": residual}

    handle = fresh_pipe.unet.register_forward_pre_hook(tell, with_kwargs=True)
    with trace(fresh_pipe) as traced:
        draw(fresh_pipe)
    handle.remove()
    (trajectory,) = traced.trajectories
    assert set(trajectory.step_added) == {"+mid_block_additional_residual"}
    backend = TorchBackend(fresh_pipe)
    replayed = DAAM(backend).attribute(trajectory)
    assert np.abs(DAAM.from_trace(traced).data - replayed.data).max() < 1e-5
    InputXGradient(backend, steps=1).attribute(trajectory)


def test_noise_levels_of_the_scheduler_that_is_there() -> None:
    pipe = build_tiny_pipe()
    early = TorchBackend(pipe)
    pipe.scheduler = DDIMScheduler.from_config(
        pipe.scheduler.config, prediction_type="v_prediction"
    )
    late = TorchBackend(pipe)
    trajectory = late.sample(PROMPT, steps=2)
    one, other = (InputXGradient(b, steps=1).attribute(trajectory).data for b in (early, late))
    assert (one == other).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tangents_keep_half_precision(dtype: torch.dtype) -> None:
    """On a GPU norms keep float32 statistics, and so would their tangents; as on a GPU, so on
    ``meta``, which computes nothing."""
    unet = build_tiny_pipe().unet.to("meta", dtype)
    latents = torch.empty(1, 4, 16, 16, device="meta", dtype=dtype)
    states, tangents = (
        torch.empty(1, 32, 24, device="meta", dtype=dtype),
        torch.empty(2, 32, 24, device="meta", dtype=dtype),
    )
    time = torch.empty(1, device="meta")
    value, changes = forward_products(
        lambda told: unet(latents, time, told, return_dict=False)[0], states, tangents, 2
    )
    assert value.dtype == changes.dtype == dtype


def test_maps_may_be_asked_for_inside_the_block(shared_pipe: StableDiffusionPipeline) -> None:
    with trace(shared_pipe) as traced:
        draw(shared_pipe)
        inside = DAAM.from_trace(traced)
    assert (inside.data == DAAM.from_trace(traced).data).all()


def test_views_of_a_panorama_are_no_picture(shared_pipe: StableDiffusionPipeline) -> None:
    panorama = with_parts(StableDiffusionPanoramaPipeline, shared_pipe)
    with trace(panorama) as views:
        # Two views of 64 places, side by side.
        panorama(PROMPT, height=64, width=576, num_inference_steps=1, output_type="np")
    with pytest.raises(ValueError, match="StableDiffusionPanoramaPipeline can't be explained"):
        DAAM.from_trace(views)


def with_ip_adapter(pipe: StableDiffusionPipeline) -> None:
    """Add an adapter of random weights, in the layout of the published ones."""
    unet, weights = pipe.unet, {}
    width = unet.config.cross_attention_dim
    cross = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for number, name in enumerate(cross):
        inner = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        for part in ("to_k_ip", "to_v_ip"):
            weights[f"{2 * number + 1}.{part}.weight"] = torch.randn(inner, width)
    projection = ImageProjection(
        image_embed_dim=width, cross_attention_dim=width, num_image_text_embeds=4
    )
    states = {
        "proj.weight": projection.image_embeds.weight,
        "proj.bias": projection.image_embeds.bias,
        "norm.weight": projection.norm.weight,
        "norm.bias": projection.norm.bias,
    }
    unet._load_ip_adapter_weights([{"image_proj": states, "ip_adapter": weights}])


def test_an_ip_adapter_wants_an_image(fresh_pipe: StableDiffusionPipeline) -> None:
    with_ip_adapter(fresh_pipe)
    backend = TorchBackend(fresh_pipe)
    assert "sample" not in backend.capabilities
    with pytest.raises(MissingCapabilityError, match="has an IP-Adapter, which wants an image"):
        backend.sample(PROMPT, steps=1)


def test_weights_that_are_fetched_module_by_module(fresh_pipe: StableDiffusionPipeline) -> None:
    with trace(fresh_pipe) as whole:
        wanted = draw(fresh_pipe)
    for part in (fresh_pipe.unet, fresh_pipe.text_encoder, fresh_pipe.vae):
        cpu_offload(part, execution_device=torch.device("cpu"), offload_buffers=True)
    assert fresh_pipe.unet.device.type == "meta"
    with trace(fresh_pipe) as traced:
        found = draw(fresh_pipe)
    assert (found == wanted).all()
    assert np.array_equal(DAAM.from_trace(traced).data, DAAM.from_trace(whole).data)


def test_gradients_in_two_threads_leave_the_switches_of_attention(
    shared_pipe: StableDiffusionPipeline,
) -> None:
    def switches() -> tuple[bool, ...]:
        back = torch.backends.cuda
        return back.flash_sdp_enabled(), back.math_sdp_enabled(), back.mem_efficient_sdp_enabled()

    backends = [TorchBackend(pipe, steps=2) for pipe in (shared_pipe, build_tiny_pipe())]
    runs = [backend.sample(PROMPT, seed=3) for backend in backends]
    methods = [InputXGradient(backend, steps=1) for backend in backends]
    wanted = [method.attribute(run).data for method, run in zip(methods, runs, strict=True)]
    before, found = switches(), {}

    def explain(number: int) -> None:
        found[number] = methods[number].attribute(runs[number]).data

    threads = [threading.Thread(target=explain, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert switches() == before
    for number in (0, 1):
        assert np.allclose(found[number], wanted[number], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_words_outside_the_prompt_in_half_precision(
    dtype: torch.dtype, fresh_pipe: StableDiffusionPipeline
) -> None:
    backend = TorchBackend(fresh_pipe.to(dtype), steps=1)
    maps = OpenVocabulary(backend).attribute(backend.sample(PROMPT, seed=1), ["green"])
    assert 0 < np.asarray(maps["green"]).max() < 1


def test_another_model_s_run_is_refused(shared_pipe: StableDiffusionPipeline) -> None:
    other = build_tiny_pipe()
    with torch.no_grad():
        other.unet.conv_in.bias += 0.5
    run = TorchBackend(shared_pipe, model_id="one", steps=1).sample(PROMPT, seed=1)
    with pytest.raises(ValueError, match=r"was made by 'one' with other weights.* than 'two'"):
        DAAM(TorchBackend(other, model_id="two", steps=1)).attribute(run)
    # Where another model's view is wanted, it is said.
    DAAM(TorchBackend(other, model_id="two", steps=1)).attribute(replace(run, weights=None))
