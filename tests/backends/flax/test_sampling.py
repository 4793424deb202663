"""Sampling is one compiled program, which averages attention on the device."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.backends.flax import models
from wordlight.attribution import DAAM
from wordlight.backends import AttentionQuery, Conditioning, ModelLoadError, load, trace
from wordlight.backends.flax.backend import FlaxBackend
from wordlight.backends.flax.programs import DenoiserConditioning
from wordlight.backends.torch.backend import TorchBackend

#: Small, so that a run costs less than its compilation.
RUN: dict[str, Any] = {"steps": 3, "height": 16, "width": 16, "guidance_scale": 3.0}


@pytest.fixture(scope="module")
def small(one_level: Path) -> FlaxBackend:
    return FlaxBackend.load(one_level)


@pytest.fixture(scope="module")
def compiled(small: FlaxBackend) -> Callable[[int], Any]:
    """The traced program at some number of steps, as XLA compiled it."""
    noise = jnp.zeros((1, 4, 8, 8))
    text = jnp.zeros((1, 32, models.TEXT_CHANNELS))

    def compile_(steps: int) -> Any:
        table = {name: jnp.ones(steps) for name in ("timesteps", "scale", "keep", "add")}
        table["taken"] = jnp.ones(steps, bool)
        return small._programs.sample.lower(
            small._parameters["unet"],
            noise,
            table,
            jnp.float32(3.0),
            DenoiserConditioning(text, {}),
            DenoiserConditioning(text, {}),
            query=AttentionQuery(),
        ).compile()

    return compile_


def test_streamed_maps_are_those_of_the_stored_trajectory(
    ours: FlaxBackend, theirs: TorchBackend
) -> None:
    """Each image's own, of the prompt's rows and not of those it is guided away from."""
    prompts = ["a red circle", "two blue squares"]
    with trace(ours) as traced:
        drawn = ours.sample(prompts, seed=4, negative_prompt="a cross", **RUN)
    assert [t.prompt for t in traced.trajectories] == prompts
    # What is drawn without a trace, but for rounding: the softmax is summed otherwise.
    untraced = ours.sample(prompts, seed=4, negative_prompt="a cross", **RUN)
    with trace(theirs) as eager:
        theirs.sample(prompts, seed=4, negative_prompt="a cross", **RUN)
    for image in (0, 1):
        assert np.abs(drawn[image].latents - untraced[image].latents).max() < 1e-4
        streamed = DAAM.from_trace(traced, image=image).data.values
        replayed = DAAM(ours).attribute(traced.trajectories[image]).data.values
        # Sums of the same float32 numbers in another order.
        assert np.abs(streamed - replayed).max() <= 1e-6
        on_torch = DAAM.from_trace(eager, image=image).data.values
        assert np.abs(streamed - on_torch).max() <= 1e-6
    difference = [DAAM.from_trace(traced, image=i).data.values[:1] for i in (0, 1)]
    assert np.abs(difference[0] - difference[1]).max() > 1e-4


def test_what_is_kept_apart_adds_up(small: FlaxBackend) -> None:
    query = AttentionQuery(keep=("step", "layer"), layers=("mid_block", "up_blocks"))
    with small.trace(query) as traced:
        small.sample("a red circle", seed=4, **RUN)
    (streamed,) = traced.attention
    replayed = small.attention(traced.trajectories[0], query, (0, 1, 2))
    assert [(m.step, m.layer, m.count) for m in streamed.means] == [
        (m.step, m.layer, m.count) for m in replayed.means
    ]
    for mine, other in zip(streamed.means, replayed.means, strict=True):
        assert np.abs(mine.values - other.values).max() <= 1e-6


def test_no_attention_map_leaves_the_device_and_memory_does_not_grow(
    compiled: Callable[[int], Any],
) -> None:
    short, long = (compiled(steps) for steps in (4, 40))
    latents = 4 * 8 * 8 * 4
    few, many = (program.memory_analysis() for program in (short, long))
    # The latents that the denoiser saw are the run's result; all else is the same at 40 steps.
    grown = many.output_size_in_bytes - few.output_size_in_bytes
    assert grown == 36 * latents
    assert many.temp_size_in_bytes - few.temp_size_in_bytes <= 36 * latents
    # One sum a grid: of 8 x 8 places and 32 tokens.
    sums = 8 * 8 * 32 * 4
    pointers = 64
    assert few.output_size_in_bytes - 5 * latents - sums <= pointers


@pytest.mark.slow  # compiles a dozen programs
def test_programs_are_compiled_anew_for_other_shapes_alone(
    small: FlaxBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither seed, prompt, guidance, timestep, noise level nor weights are part of a program."""

    def ask(prompt: str, seed: int, guidance: float, time: float, images: int = 2) -> list[str]:
        caplog.clear()
        with jax.log_compiles():
            with trace(small) as traced:
                small.sample([prompt] * images, seed=seed, **{**RUN, "guidance_scale": guidance})
            run = traced.trajectories[0]
            small.attention(run, AttentionQuery(), (0, 2))
            latents = small.asarray(run.latents[:1])
            point = latents, time, Conditioning(small.asarray(run.embeddings[None]))
            small.denoise(*point)
            small.denoise_jvp(*point, small.asarray(run.embeddings[None]))
            small.denoise_vjp(*point, latents)
            small.attention_vjp(*point, latents, AttentionQuery())
            small.encode_from(small.token_embeddings(prompt)[None])
            small.invert([run.image], [prompt], seed=seed, steps=2)
            with small.randomized("conv_out", seed=seed):
                small.denoise(*point)
        said = [record.getMessage() for record in caplog.records]
        return re.findall(r"Compiling (\S+) with global", "\n".join(said))

    first = ask("a red circle", 0, 2.0, 401.0)
    assert {"_sample", "_look", "_predict", "_predict_vjp", "_look_vjp", "_encode"} <= {
        name.removeprefix("jit(").removesuffix(")") for name in first
    }
    assert ask("two blue squares", 7, 5.0, 12.0) == []
    # One image is a program of its own, as two are and any larger number.
    assert [name for name in ask("a cross", 1, 2.0, 12.0, images=3) if "_sample" in name]


@pytest.mark.slow
def test_other_numbers_of_images_steps_and_words_compile_nothing(
    small: FlaxBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """Batches are filled up to few sizes, and runs to a number of steps."""

    def ask(images: int, steps: int, directions: int) -> tuple[list[str], Any]:
        caplog.clear()
        with jax.log_compiles():
            with trace(small) as traced:
                small.sample(["a red circle"] * images, seed=0, **{**RUN, "steps": steps})
            run = traced.trajectories[-1]
            text = np.repeat(run.embeddings[None], directions, axis=0)
            rows = small.asarray(np.repeat(run.latents[:1], directions, axis=0))
            point = small.asarray(run.latents[:1]), 12.0
            told = Conditioning(small.asarray(text))
            small.denoise(rows, 12.0, told)
            small.denoise_vjp(rows, 12.0, told, rows)
            small.denoise_jvp(*point, told.of_rows(slice(0, 1), 3), small.asarray(text))
        said = "\n".join(record.getMessage() for record in caplog.records)
        programs = re.findall(r"Compiling jit\((_\w+)\) with global", said)
        return programs, traced

    first, _ = ask(3, 3, 3)
    assert {"_predict", "_predict_jvp", "_predict_vjp"} <= set(first)
    again, traced = ask(5, 4, 11)
    assert again == []
    # Those that fill up are in no answer.
    assert len(traced.trajectories) == len(traced.attention) == 5
    assert {run.steps for run in traced.trajectories} == {4}
    for run, means in zip(traced.trajectories[::4], traced.attention[::4], strict=True):
        replayed = small.attention(run, AttentionQuery(), (0, 1, 2, 3))
        for one, other in zip(means.means, replayed.means, strict=True):
            assert one.count == other.count
            # Sums of the same float32 numbers in another order.
            assert np.abs(one.values - other.values).max() <= 1e-6


def test_an_image_is_the_same_in_any_company(small: FlaxBackend) -> None:
    """Batches are cut into parts, of which the last is filled up."""
    alone = small.sample("a red circle", seed=3, **RUN)
    in_part = small.sample(["a red circle"] * 5, seed=[7, 6, 5, 4, 3], **RUN)[4]
    # Another size of batch adds up in another order.
    assert np.abs(alone.latents - in_part.latents).max() < 1e-5


def test_in_bfloat16_the_softmax_and_the_mean_stay_float32(
    small: FlaxBackend, one_level: Path
) -> None:
    half = FlaxBackend.load(one_level, dtype="bfloat16")
    with trace(half) as traced:
        half.sample(["a red circle"], seed=4, **RUN)
    (run,) = traced.trajectories
    for mean in traced.attention[0].means:
        # bfloat16 has eight bits: rows would sum to one within some thousandths.
        assert np.abs(mean.values.sum(0, dtype=np.float64) - 1).max() < 1e-5
    whole = small.attention(run, AttentionQuery(), (0, 1, 2))
    for mine, other in zip(traced.attention[0].means, whole.means, strict=True):
        # The projections' own rounding, 2^-8, some of them in sequence.
        distance = np.linalg.norm(mine.values - other.values)
        assert 1e-5 < distance / np.linalg.norm(other.values) < 3e-2


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_precisions_are_refused_by_name(dtype: str, folder: Path) -> None:
    with pytest.raises(ModelLoadError, match=f"float32, bfloat16, not '{dtype}'"):
        load(folder, framework="flax", dtype=dtype)


def test_a_trace_says_what_is_wrong(ours: FlaxBackend) -> None:
    with pytest.raises(ValueError, match="no cross-attention layer 'elsewhere'; there are"):
        ours.trace(AttentionQuery(layers=("elsewhere",)))
    with pytest.raises(ValueError, match="prompts are for a pipeline"):
        trace(ours, prompts=["a"])
    with trace(ours) as traced, pytest.raises(ValueError, match="is being traced"):
        trace(ours).__enter__()
    with pytest.raises(ValueError, match="nothing was traced"):
        DAAM.from_trace(traced)
    with pytest.raises(ZeroDivisionError), trace(ours):
        raise ZeroDivisionError
    assert ours._tracing is None
