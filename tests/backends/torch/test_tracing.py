"""Tracing changes nothing, leaves nothing, and sees what the layers really do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    HeunDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from peft import LoraConfig
from torch.overrides import _get_current_function_mode_stack

from wordlight.attribution import DAAM, InputXGradient, Occlusion, Regeneration
from wordlight.attribution.resize import average_down
from wordlight.backends import AttentionQuery, trace
from wordlight.backends.torch.attention_calls import KERNELS
from wordlight.backends.torch.attention_layers import attention_layers
from wordlight.backends.torch.backend import TorchBackend

PROMPT = "a red circle and two blue triangles"
#: What the pipelines' classes are called by when nobody listens.
CALLS = {kind: kind.__call__ for kind in (StableDiffusionPipeline, StableDiffusionImg2ImgPipeline)}


def draw(pipe: StableDiffusionPipeline, prompt: Any = PROMPT, **options: Any) -> np.ndarray:
    options = {"num_inference_steps": 2, "output_type": "np", **options}
    return np.asarray(pipe(prompt, generator=torch.Generator().manual_seed(0), **options).images)


def hooks_of(pipe: StableDiffusionPipeline) -> int:
    """Everything that tracing could leave: hooks on modules, wrappers round classes and kernels,
    modes."""
    modules = [*pipe.unet.modules(), *pipe.vae.modules(), *pipe.text_encoder.modules()]
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)
    return (
        hooks
        + sum(callable(v) for v in (*vars(pipe.image_processor).values(),))
        + ("encode_prompt" in vars(pipe))
        + (CALLS[type(pipe)] is not type(pipe).__call__)
        + len(KERNELS.listeners)
        + len(_get_current_function_mode_stack())
    )


def plain(pipe: StableDiffusionPipeline) -> None:
    pipe.unet.set_attn_processor(AttnProcessor())


def fused(pipe: StableDiffusionPipeline) -> None:
    pipe.unet.set_attn_processor(AttnProcessor2_0())


def lora(pipe: StableDiffusionPipeline) -> None:
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    pipe.unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=targets))


@pytest.mark.parametrize("processors", [fused, plain, lora])
def test_the_image_is_bit_identical(
    fresh_pipe: StableDiffusionPipeline, processors: Callable[[StableDiffusionPipeline], None]
) -> None:
    processors(fresh_pipe)
    before = hooks_of(fresh_pipe)
    untraced = draw(fresh_pipe)
    with trace(fresh_pipe) as traced:
        during = draw(fresh_pipe)
    assert (untraced == during).all()
    assert (untraced == draw(fresh_pipe)).all()
    assert hooks_of(fresh_pipe) == before
    assert len(traced.trajectories) == 1


def test_a_lora_changes_the_maps(fresh_pipe: StableDiffusionPipeline) -> None:
    """The maps are of the attention as it is, with the LoRA in it."""
    with trace(fresh_pipe) as without:
        draw(fresh_pipe)
    lora(fresh_pipe)
    with trace(fresh_pipe) as adapted:
        draw(fresh_pipe)
    maps = [DAAM.from_trace(t).data.values for t in (without, adapted)]
    assert np.abs(maps[0] - maps[1]).max() > 1e-4


def test_hooks_go_after_an_exception(shared_pipe: StableDiffusionPipeline) -> None:
    before = hooks_of(shared_pipe)
    with pytest.raises(ZeroDivisionError), trace(shared_pipe):  # noqa: PT012 - the block is the test
        draw(shared_pipe)
        raise ZeroDivisionError
    assert hooks_of(shared_pipe) == before


def test_hooks_go_when_hooking_fails_half_way(
    shared_pipe: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipeline's own call goes on, and the reason is said when maps are asked for."""
    before, plainly = hooks_of(shared_pipe), draw(shared_pipe)
    victim = list(attention_layers(shared_pipe.unet).values())[-1]

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("no room for a hook")

    monkeypatch.setattr(victim, "register_forward_hook", refuse)
    with trace(shared_pipe) as traced:
        assert (draw(shared_pipe) == plainly).all()
    assert hooks_of(shared_pipe) == before
    with pytest.raises(ValueError, match="no room for a hook"):
        DAAM.from_trace(traced)


def captured_by_plain_attention(
    pipe: StableDiffusionPipeline, run: Callable[[], Any]
) -> dict[str, list[torch.Tensor]]:
    """softmax(QKᵀ/√d) as diffusers' own plain processor computes it, by layer and step."""
    seen: dict[str, list[torch.Tensor]] = {}
    layers = attention_layers(pipe.unet)
    pipe.unet.set_attn_processor(AttnProcessor())
    for name, layer in layers.items():

        def scores(
            query: torch.Tensor, key: torch.Tensor, mask: Any = None, name: str = name
        ) -> torch.Tensor:
            probs = Attention.get_attention_scores(layers[name], query, key, mask)
            seen.setdefault(name, []).append(probs.unflatten(0, (-1, layers[name].heads)))
            return probs

        layer.get_attention_scores = scores
    try:
        run()
    finally:
        for layer in layers.values():
            del layer.get_attention_scores
        pipe.unet.set_attn_processor(AttnProcessor2_0())
    return seen


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_captured_equals_plain_attention_at_every_layer(
    shared_pipe: StableDiffusionPipeline, guidance: float
) -> None:
    query = AttentionQuery(keep=("step", "layer", "head"))
    with trace(shared_pipe, query) as traced:
        draw(shared_pipe, guidance_scale=guidance)
    truth = captured_by_plain_attention(
        shared_pipe, lambda: draw(shared_pipe, guidance_scale=guidance)
    )
    means = traced.attention[0].means
    assert {m.layer for m in means} == set(truth)
    assert len(truth) == 16
    assert len(means) == 16 * 8 * 2
    for mean in means:
        assert mean.layer is not None
        assert mean.step is not None
        wanted = truth[mean.layer][mean.step][-1, mean.head].T.reshape(mean.values.shape)
        # The plain processor multiplies in another order: float32 rounding of values up to 1;
        # at later steps also of latents that differ by rounding.
        assert np.abs(mean.values - wanted.numpy()).max() < 1e-5


def test_original_daam_is_reproduced(shared_pipe: StableDiffusionPipeline) -> None:
    """The released code's arithmetic, written down independently: sum over steps by layer and
    head, without the middle block and the grid eight times smaller, bicubic, clamp, mean."""
    with trace(shared_pipe) as traced:
        draw(shared_pipe)
    truth = captured_by_plain_attention(shared_pipe, lambda: draw(shared_pipe))
    maps = []
    for name, steps in truth.items():
        side = math.isqrt(steps[0].shape[2])
        if name.startswith("mid_block") or 16 // side == 8:
            continue
        summed = torch.stack([probs[-1] for probs in steps]).sum(0)
        grid = summed.permute(0, 2, 1).unflatten(2, (side, side))
        maps.append(torch.nn.functional.interpolate(grid, (16, 16), mode="bicubic").clamp(min=0))
    wanted = torch.cat(maps).mean(0) / 2
    backend = TorchBackend(shared_pipe)
    ours = DAAM.original(backend).attribute(traced.trajectories[0])
    for word in ours.words:
        by_hand = wanted[list(word.tokens)].mean(0).numpy()
        # float32 rounding of the attention, as above.
        assert np.abs(np.asarray(ours.at(word)) - by_hand).max() < 1e-5


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("size", [(32, 32), (64, 40)])
def test_replay_equals_stream(
    backend: TorchBackend, guidance: float, size: tuple[int, int]
) -> None:
    prompts = [PROMPT, "a green square", "one dog, two cats and a bird."]
    with trace(backend.pipe) as traced:
        draw(
            backend.pipe,
            prompts,
            guidance_scale=guidance,
            num_images_per_prompt=2,
            negative_prompt=["a yellow cross"] * 3 if guidance > 1 else None,
            height=size[0],
            width=size[1],
        )
    assert len(traced.trajectories) == 6
    for index, trajectory in enumerate(traced.trajectories):
        assert trajectory.prompt == prompts[index // 2]
        assert trajectory.grid == (size[0] // 2, size[1] // 2)
        streamed = DAAM.from_trace(traced, image=index).data.values
        replayed = DAAM(backend).attribute(trajectory).data.values
        # Batches of another size sum in another order: float32 rounding of values up to 1.
        assert np.abs(streamed - replayed).max() < 1e-5
    first, second = (DAAM.from_trace(traced, image=i).data.values for i in (0, 1))
    assert np.abs(first - second).max() > 1e-4
    with pytest.raises(IndexError, match="say which"):
        DAAM.from_trace(traced)
    with pytest.raises(IndexError, match="no image 6"):
        DAAM.from_trace(traced, image=6)


def test_wide_latents_stay_wide(backend: TorchBackend) -> None:
    """16:9 latents of 64 x 36 pixels have as many pixels as 48 x 48: never take the root."""
    with trace(backend.pipe) as traced:
        draw(backend.pipe, height=128, width=72, num_inference_steps=1)
    grids = {m.values.shape[1:] for m in traced.attention[0].means}
    assert grids == {(64, 36), (32, 18), (16, 9), (8, 5)}
    assert DAAM.from_trace(traced)["circle"].shape == (64, 36)


def test_a_call_in_autocast(backend: TorchBackend) -> None:
    """Its layers compute in bfloat16; what is measured of them is float32."""
    with torch.autocast("cpu", torch.bfloat16):
        with trace(backend) as streamed:
            run = backend.sample(PROMPT, seed=3, steps=2)
        replayed = DAAM(backend).attribute(run).data
    exact = DAAM(backend).attribute(run).data
    scale = float(abs(replayed).max())
    assert DAAM.from_trace(streamed).data.values == pytest.approx(replayed.values, abs=1e-2 * scale)
    # Rounding of bfloat16, 2^-9, in the layers; not in the sums.
    assert 1e-6 < float(abs(exact - replayed).max()) / scale < 0.05


def test_memory_does_not_grow_with_steps(shared_pipe: StableDiffusionPipeline) -> None:
    held = []
    for steps in (2, 6):
        with trace(shared_pipe) as traced:
            draw(shared_pipe, num_inference_steps=steps)
        held.append(traced.held_bytes)
    # 32 tokens on 16x16, 8x8, 4x4 and the middle block's 2x2, in float32.
    assert held == [32 * (256 + 64 + 16 + 4) * 4] * 2


def test_selection_of_layers_heads_and_grids(backend: TorchBackend) -> None:
    trajectory = backend.sample(PROMPT, seed=1)
    whole = DAAM(backend, keep=("layer", "head")).attribute(trajectory)
    assert whole.data.sizes["layer"] == 16
    assert whole.data.sizes["head"] == 8
    some = DAAM(backend, layers=["up_blocks.3"], heads=[1, 5]).attribute(trajectory)
    names = [n for n in whole.data.coords["layer"].values if n.startswith("up_blocks.3.")]
    wanted = whole.data.sel(layer=names, head=[1, 5]).mean(["layer", "head"])
    # Clamping each layer's map differs from clamping the mean only where a map is negative.
    assert np.abs(some.data.values - wanted.values).max() < 1e-6
    middle = DAAM(backend, factors=[8]).attribute(trajectory)
    alone = DAAM(backend, layers=["mid_block"]).attribute(trajectory)
    assert np.abs(middle.data.values - alone.data.values).max() < 1e-7
    with pytest.raises(ValueError, match="no cross-attention layer"):
        DAAM(backend, layers=["up_blocks.9"]).attribute(trajectory)
    with pytest.raises(ValueError, match="head 8 doesn't exist"):
        DAAM(backend, heads=[8]).attribute(trajectory)
    with pytest.raises(ValueError, match="no such grid"):
        DAAM(backend, factors=[3]).attribute(trajectory)
    with pytest.raises(ValueError, match="unknown axes"):
        DAAM(backend, keep=["token"])


def test_streams_need_what_they_kept(shared_pipe: StableDiffusionPipeline) -> None:
    with trace(shared_pipe) as traced:
        draw(shared_pipe)
    with pytest.raises(ValueError, match="keep="):
        DAAM.from_trace(traced, clamp="per-map")
    with trace(shared_pipe, AttentionQuery(keep=("layer", "head"))) as apart:
        draw(shared_pipe)
    clamped = DAAM.from_trace(apart, clamp="per-map")
    backend = TorchBackend(shared_pipe)
    replayed = DAAM(backend, clamp="per-map").attribute(apart.trajectories[0])
    assert clamped.data.shape[1:3] == (16, 8)
    mean = clamped.data.mean(["layer", "head"])
    assert np.abs(mean.values - replayed.data.values).max() < 1e-5


def test_latents_and_embeddings_as_the_user_likes(shared_pipe: StableDiffusionPipeline) -> None:
    image = draw(shared_pipe)
    with trace(shared_pipe) as traced:
        draw(shared_pipe, output_type="latent")
    shown = traced.trajectories[0].image
    assert np.abs(shown - np.rint(image[0] * 255)).max() <= 1
    with torch.no_grad():
        states, negative = shared_pipe.encode_prompt(PROMPT, "cpu", 1, True)
    given = {"prompt_embeds": states, "negative_prompt_embeds": negative}
    with trace(shared_pipe) as unnamed:
        draw(shared_pipe, None, **given)
    with pytest.raises(ValueError, match="prompts="):
        _ = unnamed.trajectories
    with trace(shared_pipe, prompts=[PROMPT]) as named:
        draw(shared_pipe, None, **given)
    assert np.allclose(
        DAAM.from_trace(named).data.values, DAAM.from_trace(traced).data.values, atol=1e-6
    )


def test_several_calls_in_one_block(shared_pipe: StableDiffusionPipeline) -> None:
    with trace(shared_pipe) as traced:
        draw(shared_pipe)
        draw(shared_pipe, "a green square", num_inference_steps=3)
    assert [t.prompt for t in traced.trajectories] == [PROMPT, "a green square"]
    assert [t.steps for t in traced.trajectories] == [2, 3]
    assert len(traced.attention) == 2
    with trace(shared_pipe) as idle:
        pass
    with pytest.raises(ValueError, match="nothing was traced"):
        _ = idle.trajectories


def test_what_a_replay_cannot_know_is_said(shared_pipe: StableDiffusionPipeline) -> None:
    def change(pipe: Any, _step: int, _time: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        return {"prompt_embeds": kwargs["prompt_embeds"] * 1.5}

    with trace(shared_pipe) as traced:
        draw(
            shared_pipe,
            callback_on_step_end=change,
            callback_on_step_end_tensor_inputs=["prompt_embeds"],
        )
    with pytest.raises(ValueError, match="the text embeddings changed between steps"):
        DAAM.from_trace(traced)
    backend = TorchBackend(shared_pipe)
    with pytest.raises(ValueError, match=r"can't be replayed \(the text embeddings changed"):
        DAAM(backend).attribute(traced.trajectories[0])


def test_a_hook_that_edits_the_text(shared_pipe: StableDiffusionPipeline) -> None:
    """What was recorded has been through the hook, and mustn't go through it again."""
    pipe, backend = shared_pipe, TorchBackend(shared_pipe)

    def edit(_module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "encoder_hidden_states": kwargs["encoder_hidden_states"] * 1.5}

    def look(_module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        assert len(args) + len(kwargs) > 0

    with pipe.unet.register_forward_pre_hook(edit, with_kwargs=True):
        with trace(pipe) as traced:
            draw(pipe)
        with pytest.raises(ValueError, match="a hook changes what the denoiser is called with"):
            DAAM(backend).attribute(traced.trajectories[0])
    replayed = DAAM(backend).attribute(traced.trajectories[0])
    assert np.abs(DAAM.from_trace(traced).data - replayed.data).max() < 1e-5
    with pipe.unet.register_forward_pre_hook(look, with_kwargs=True):
        again = DAAM(backend).attribute(traced.trajectories[0])
    assert (again.data == replayed.data).all()


def test_a_hook_set_while_a_pipeline_is_traced(shared_pipe: StableDiffusionPipeline) -> None:
    def edit(_module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "encoder_hidden_states": kwargs["encoder_hidden_states"] * 1.5}

    def set_hook(pipe: Any, step: int, _time: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if step == 0:
            handles.append(pipe.unet.register_forward_pre_hook(edit, with_kwargs=True))
        return kwargs

    handles: list[Any] = []
    with trace(shared_pipe) as traced:
        draw(shared_pipe, callback_on_step_end=set_hook)
    handles[0].remove()
    with pytest.raises(ValueError, match="the text embeddings changed between steps"):
        DAAM.from_trace(traced)
    with pytest.raises(ValueError, match=r"can't be replayed \("):
        DAAM(TorchBackend(shared_pipe)).attribute(traced.trajectories[0])


def test_guidance_switched_off_on_the_way(shared_pipe: StableDiffusionPipeline) -> None:
    """A callback may stop guiding: then all rows are the conditional ones."""

    def stop(pipe: Any, step: int, _time: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        if step == 0:
            pipe._guidance_scale = 0.0
            return {"prompt_embeds": kwargs["prompt_embeds"].chunk(2)[-1]}
        return {}

    with trace(shared_pipe) as traced:
        draw(
            shared_pipe,
            callback_on_step_end=stop,
            callback_on_step_end_tensor_inputs=["prompt_embeds"],
        )
    (trajectory,) = traced.trajectories
    replayed = DAAM(TorchBackend(shared_pipe)).attribute(trajectory)
    assert np.abs(DAAM.from_trace(traced).data - replayed.data).max() < 1e-5


def test_fused_projections(fresh_pipe: StableDiffusionPipeline) -> None:
    with trace(fresh_pipe) as apart:
        draw(fresh_pipe)
    fresh_pipe.fuse_qkv_projections()
    with trace(fresh_pipe) as fused_ones:
        draw(fresh_pipe)
    maps = [DAAM.from_trace(one).data.values for one in (apart, fused_ones)]
    # One product in the place of three: float32 rounding of values up to 1.
    assert np.abs(maps[0] - maps[1]).max() < 1e-5


def test_attention_set_by_hand(fresh_pipe: StableDiffusionPipeline) -> None:
    """Queries and keys chosen so that the softmax is known: DAAM is then known on paper."""

    class Fixed(torch.nn.Module):
        def __init__(self, output: torch.Tensor) -> None:
            super().__init__()
            self.output = output

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.output.expand(len(x), -1, -1)

    layers = attention_layers(fresh_pipe.unet)
    name = "up_blocks.3.attentions.0.transformer_blocks.0.attn2"
    layer = layers[name]
    width = layer.to_q.out_features // layer.heads
    # Along one direction a head's query is 1 on the left half and 0 elsewhere; the key of token 3
    # is b there and all others 0: so p = e^(b·scale) / (e^(b·scale) + 31) or 1/32.
    query = torch.zeros(1, 16, 16, layer.heads, width)
    query[:, :, :8, :, 0] = 1.0
    key = torch.zeros(1, 32, layer.heads, width)
    key[:, 3, :, 0] = 5.0
    layer.to_q, layer.to_k = Fixed(query.reshape(1, 256, -1)), Fixed(key.flatten(2))
    backend = TorchBackend(fresh_pipe, steps=2)
    trajectory = backend.sample(PROMPT)
    maps = DAAM(backend, layers=[name]).attribute(trajectory)
    strong = math.exp(5.0 * layer.scale)
    circle = np.asarray(maps["circle"])
    assert maps["circle"].word.tokens == (3,)
    # float32 rounding of probabilities.
    assert np.allclose(circle[:, :8], strong / (strong + 31), atol=1e-6)
    assert np.allclose(circle[:, 8:], 1 / 32, atol=1e-6)
    red = np.asarray(maps["red"])
    assert np.allclose(red[:, :8], 1 / (strong + 31), atol=1e-6)


def test_a_safety_checker_may_look_at_the_images(fresh_pipe: StableDiffusionPipeline) -> None:
    """It post-processes images too; the trace has the pipeline's own, once."""

    class Checker(torch.nn.Module):
        dtype, device = torch.float32, torch.device("cpu")

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images: Any, clip_input: Any) -> tuple[Any, list[bool]]:
            return images, [False] * len(images)

    class Extractor:
        def __call__(self, images: Any, return_tensors: str) -> Any:
            class Features:
                pixel_values = torch.zeros(len(images), 3)

                def to(self, device: Any) -> Any:
                    return self

            return Features()

    fresh_pipe.safety_checker, fresh_pipe.feature_extractor = Checker(), Extractor()
    for output in ("np", "pil"):
        with trace(fresh_pipe) as traced:
            fresh_pipe(PROMPT, num_inference_steps=2, output_type=output, num_images_per_prompt=2)
        assert len(traced.trajectories) == 2
        assert DAAM.from_trace(traced, image=1)["circle"].shape == (16, 16)


def test_no_method_replays_what_cannot_be_replayed(backend: TorchBackend) -> None:
    stuck = replace(backend.sample(PROMPT), not_replayable="residuals were added")
    for method in (DAAM, Occlusion, InputXGradient):
        with pytest.raises(ValueError, match="residuals were added"):
            method(backend).attribute(stuck)


def test_what_becomes_of_the_pipeline_later_changes_nothing(
    fresh_pipe: StableDiffusionPipeline,
) -> None:
    with trace(fresh_pipe) as traced:
        draw(fresh_pipe, output_type="latent")
    wanted = TorchBackend(fresh_pipe).encode([""]).embeddings[0].numpy()
    with torch.no_grad():
        for weight in (*fresh_pipe.text_encoder.parameters(), *fresh_pipe.vae.parameters()):
            weight += 1.0
    (made,) = traced.trajectories
    assert (made.empty_embeddings == wanted).all()
    assert made.image.std() > 0


@pytest.mark.parametrize("scheduler", [PNDMScheduler, HeunDiscreteScheduler])
@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)
def test_schedulers_that_call_the_denoiser_more_often(
    fresh_pipe: StableDiffusionPipeline, scheduler: Any
) -> None:
    fresh_pipe.scheduler = scheduler.from_config(fresh_pipe.scheduler.config)
    backend = TorchBackend(fresh_pipe)
    with trace(fresh_pipe) as traced:
        draw(fresh_pipe, num_inference_steps=5)
    (made,) = traced.trajectories
    assert backend.denoising_steps(5) == made.steps > 5
    assert np.abs(DAAM.from_trace(traced).data - DAAM(backend).attribute(made).data).max() < 1e-5
    (noised,) = backend.invert([made.image], [PROMPT], steps=5)
    assert len(set(noised.timesteps)) == len(noised.timesteps)


@pytest.mark.parametrize(
    ("scheduler", "options", "again"),
    [
        (PNDMScheduler, {"skip_prk_steps": True}, True),
        (HeunDiscreteScheduler, {}, True),
        # Its first timesteps are spread over others than five even ones.
        (PNDMScheduler, {"skip_prk_steps": False}, False),
    ],
)
@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)
def test_an_image_is_drawn_again_in_the_steps_that_were_asked_for(
    fresh_pipe: StableDiffusionPipeline, scheduler: Any, options: dict[str, Any], again: bool
) -> None:
    """Not in as many as the scheduler made of them."""
    fresh_pipe.scheduler = scheduler.from_config(fresh_pipe.scheduler.config, **options)
    backend = TorchBackend(fresh_pipe)
    drawn = backend.sample("red blue", seed=2, steps=5)
    assert drawn.steps > 5
    if not again:
        with pytest.raises(ValueError, match="other timesteps"):
            Regeneration(backend).attribute(drawn)
        return
    maps = Regeneration(backend).attribute(drawn)
    shorter = backend.sample("red", seed=2, steps=5)
    change = np.linalg.norm((shorter.image.astype(float) - drawn.image) / 255, axis=-1)
    # Maps are float32.
    assert np.allclose(np.asarray(maps["blue"]), average_down(change, drawn.grid), atol=1e-6)


def test_self_attention_is_no_map_of_words(fresh_pipe: StableDiffusionPipeline) -> None:
    with trace(fresh_pipe, AttentionQuery(kind="self")) as traced:
        draw(fresh_pipe)
    # Where there are as many places as tokens, nothing else would notice.
    assert traced.attention[0].means
    with pytest.raises(ValueError, match="the trace is of self-attention"):
        DAAM.from_trace(traced)


def test_factors_of_odd_grids(backend: TorchBackend) -> None:
    """Latents of 36 x 64 have a middle block of 5 x 8, which still is the factor 8."""
    trajectory = backend.sample(PROMPT, height=72, width=128, steps=1)
    maps = DAAM(backend, factors=[8]).attribute(trajectory)
    alone = DAAM(backend, layers=["mid_block"]).attribute(trajectory)
    assert np.abs(maps.data.values - alone.data.values).max() < 1e-7


def test_per_map_clamping_of_layers_with_different_heads(
    fresh_pipe: StableDiffusionPipeline,
) -> None:
    """As in Stable Diffusion 2: kept apart while streaming, merged after each is clamped."""
    name = "up_blocks.3.attentions.0.transformer_blocks.0.attn2"
    layer = attention_layers(fresh_pipe.unet)[name]
    layer.heads = 4
    with trace(fresh_pipe, AttentionQuery(keep=("layer", "head"))) as traced:
        draw(fresh_pipe)
    merged = DAAM.from_trace(traced, clamp="per-map", keep=())
    replayed = DAAM(TorchBackend(fresh_pipe), clamp="per-map").attribute(traced.trajectories[0])
    assert np.abs(merged.data.values - replayed.data.values).max() < 1e-5
    with pytest.raises(ValueError, match="keep fewer axes"):
        DAAM.from_trace(traced, clamp="per-map")
    with pytest.raises(ValueError, match="the trace kept"):
        DAAM.from_trace(traced, keep=("step",))
