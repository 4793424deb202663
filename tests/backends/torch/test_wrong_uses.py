"""Uses that can't give a right map: one clear error each, and never a wrong map."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from wordlight import trace
from wordlight.attribution import DAAM, InputXGradient, Occlusion, Regeneration
from wordlight.backends import AttentionQuery
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.call_arguments import NOISE_LEVEL
from wordlight.backends.torch.tiny import build_tiny, draw_tiny

PROMPT = "a red circle"


@cache
def traced(family: str = "sd") -> tuple[Any, Any]:
    pipe = build_tiny(family)
    with trace(pipe) as run:
        draw_tiny(family, pipe, PROMPT)
    return pipe, run


def run_of(family: str = "sd") -> Any:
    return traced(family)[1].trajectories[0]


def backend_of(family: str = "sd") -> TorchBackend:
    return TorchBackend(traced(family)[0])


def nothing_called() -> None:
    with trace(build_tiny("sd")) as run:
        pass
    DAAM.from_trace(run)


def called_outside_the_block() -> None:
    pipe = build_tiny("sd")
    with trace(pipe) as run:
        pass
    draw_tiny("sd", pipe, PROMPT)
    DAAM.from_trace(run)


def asked_while_it_runs() -> None:
    pipe = build_tiny("sd")

    def ask(*_: Any) -> dict[str, Any]:
        DAAM.from_trace(run)
        return {}

    with trace(pipe) as run:
        draw_tiny("sd", pipe, PROMPT, callback_on_step_end=ask)


def several_images_and_none_named() -> None:
    pipe = build_tiny("sd")
    with trace(pipe) as run:
        draw_tiny("sd", pipe, [PROMPT, "a cat"])
    DAAM.from_trace(run)


def embeddings_without_words() -> None:
    pipe = build_tiny("sd")
    with torch.no_grad():
        states, away = pipe.encode_prompt(PROMPT, "cpu", 1, True)
    with trace(pipe) as run:
        draw_tiny("sd", pipe, None, prompt_embeds=states, negative_prompt_embeds=away)
    DAAM.from_trace(run)


def words_for_another_number_of_images() -> None:
    pipe = build_tiny("sd")
    with torch.no_grad():
        states, away = pipe.encode_prompt(PROMPT, "cpu", 1, True)
    with trace(pipe, prompts=[PROMPT, "a cat"]) as run:
        draw_tiny("sd", pipe, None, prompt_embeds=states, negative_prompt_embeds=away)
    DAAM.from_trace(run)


def weights_that_changed() -> None:
    pipe = build_tiny("sd")
    with trace(pipe) as run:
        draw_tiny("sd", pipe, PROMPT)
    with torch.no_grad():
        pipe.unet.conv_in.weight.mul_(2)
    DAAM(TorchBackend(pipe)).attribute(run.trajectories[0])


def denoiser_of_another_family() -> None:
    backend = TorchBackend(build_tiny("sd"))
    backend.pipe.unet = torch.nn.Linear(1, 1)
    backend.tokenize(PROMPT)
    backend.sample(PROMPT, steps=1)


def pushed_away() -> Any:
    pipe = traced("flux-dev")[0]
    with trace(pipe) as run:
        draw_tiny("flux-dev", pipe, PROMPT, negative_prompt="a dog", true_cfg_scale=3.0)
    return replace(run.trajectories[0], seed=0)


def without_noise_levels() -> Any:
    run = run_of("cogview-4")
    kept = {name: value for name, value in run.added.items() if name != NOISE_LEVEL}
    return replace(run, step_added={}, added=kept)


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "nothing was called": (nothing_called, ValueError, "nothing was traced"),
    "called outside": (called_outside_the_block, ValueError, "nothing was traced"),
    "asked while it runs": (asked_while_it_runs, ValueError, "still running"),
    "which image": (several_images_and_none_named, IndexError, "image=0 ... image=1"),
    "no such image": (
        lambda: DAAM.from_trace(traced()[1], image=7),
        IndexError,
        "no image 7",
    ),
    "embeddings without words": (embeddings_without_words, ValueError, "pass the words as"),
    "words of another number": (
        words_for_another_number_of_images,
        ValueError,
        "names 2 prompt",
    ),
    "weights that changed": (weights_that_changed, ValueError, "other weights or adapters"),
    "another denoiser by now": (denoiser_of_another_family, ValueError, "any more"),
    "another model's run": (
        lambda: DAAM(backend_of("sdxl")).attribute(run_of("sd")),
        ValueError,
        "other weights",
    ),
    "another family's run": (
        lambda: DAAM(backend_of("sd")).attribute(run_of("flux-dev")),
        ValueError,
        "other weights",
    ),
    "a word that isn't there": (
        lambda: DAAM.from_trace(traced()[1])["dog"],
        KeyError,
        "its words are a, red, circle",
    ),
    "words as one string": (
        lambda: DAAM.from_trace(traced()[1], "circle"),
        TypeError,
        "list of words",
    ),
    "overlapping words": (
        lambda: DAAM.from_trace(traced()[1], ["red circle", "red"]),
        ValueError,
        "overlaps",
    ),
    "a layer that isn't there": (
        lambda: trace(traced("sd3")[0], AttentionQuery(layers=("up_blocks",))).__enter__(),
        ValueError,
        "no cross-attention layer 'up_blocks'",
    ),
    "a head that isn't there": (
        lambda: trace(traced("sd3")[0], AttentionQuery(heads=(9,))).__enter__(),
        ValueError,
        "head 9 doesn't exist",
    ),
    "maps of self-attention": (
        lambda: DAAM.from_trace(_of_itself()),
        ValueError,
        "goes to no word",
    ),
    "axes that weren't kept": (
        lambda: DAAM.from_trace(traced()[1], keep=["layer"]),
        ValueError,
        "the trace kept",
    ),
    "steps that it hasn't": (
        lambda: DAAM(backend_of(), steps=(9,)).attribute(run_of()),
        ValueError,
        "outside 0..1",
    ),
    "a pipeline for a backend": (lambda: DAAM(traced()[0]), TypeError, "load(pipeline)"),
    "a picture for a run": (
        lambda: DAAM(backend_of()).attribute(np.zeros((32, 64, 3), np.uint8)),
        TypeError,
        "trajectory",
    ),
    "latents that aren't numbers": (
        lambda: replace(run_of(), latents=run_of().latents * np.nan),
        ValueError,
        "finite",
    ),
    "tokens of another prompt": (
        lambda: replace(run_of(), tokens=run_of("flux-dev").tokens),
        ValueError,
        "for 512 tokens",
    ),
    "no negative prompt": (
        lambda: InputXGradient(backend_of("flux-dev")).attribute(
            run_of("flux-dev"), baselines="negative"
        ),
        ValueError,
        "without guidance",
    ),
    "a primitive that it hasn't": (
        lambda: InputXGradient(backend_of("hidream")),
        RuntimeError,
        "no forward-mode rule",
    ),
    "a noise level that the timestep doesn't tell": (
        lambda: backend_of("cogview-4").noise_level(500.0),
        ValueError,
        "shifted by the picture's size",
    ),
    "a run without its noise levels": (
        lambda: Occlusion(backend_of("cogview-4")).attribute(without_noise_levels()),
        ValueError,
        "wasn't when this run was made",
    ),
    "guidance that sample doesn't do": (
        lambda: Regeneration(backend_of("flux-dev")).attribute(pushed_away()),
        ValueError,
        "true_cfg_scale beside",
    ),
    "no pipeline of images": (lambda: trace(object()), ValueError, "not a pipeline of images"),
}


def _of_itself() -> Any:
    pipe = traced()[0]
    with trace(pipe, AttentionQuery(kind="self")) as run:
        draw_tiny("sd", pipe, PROMPT)
    return run


@pytest.mark.parametrize("use", WRONG)
def test_a_wrong_use_has_one_clear_error(use: str) -> None:
    wrong, kind, says = WRONG[use]
    with pytest.raises(kind) as raised:
        wrong()
    assert says in str(raised.value)
    pipe = traced()[0]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in pipe.unet.modules())
