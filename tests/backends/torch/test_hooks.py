"""Users' own hooks on a denoiser: a replay is with those of the run, or is refused."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.backends.torch.tiny import build_tiny_pipe
from wordlight import load, trace
from wordlight.attribution import DAAM, AttributionMaps
from wordlight.backends.torch.tiny import build_tiny
from wordlight.backends.trajectory import Trajectory

PROMPT = "a red circle"
OTHERWISE = r"predicts otherwise than in the run \(\d+% apart\)"


def small() -> Any:
    pipe = build_tiny_pipe(levels=2, layers=1)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def attending(pipe: Any) -> list[torch.nn.Module]:
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    return [m for name, m in denoiser.named_modules() if name.endswith(("attn2", ".attn"))]


def drawn(pipe: Any, **call: Any) -> tuple[AttributionMaps, Trajectory]:
    with trace(pipe) as run:
        pipe(PROMPT, num_inference_steps=2, height=32, width=32, output_type="latent", **call)
    return DAAM.from_trace(run), run.trajectories[0]


def scaled(_module: Any, _inputs: Any, output: Any) -> Any:
    return tuple(1.5 * one for one in output) if isinstance(output, tuple) else 1.5 * output


def scaled_in_place(_module: Any, _inputs: Any, output: Any) -> None:
    (output[0] if isinstance(output, tuple) else output).mul_(1.5)


def looks(_module: Any, _inputs: Any, _output: Any) -> None:
    """Changes nothing."""


def replayed(pipe: Any, run: Trajectory) -> Any:
    return DAAM(load(pipe)).attribute(run).data


@pytest.mark.parametrize(
    ("build", "hook"),
    [(small, scaled_in_place), (lambda: build_tiny("flux-dev"), functools.partial(scaled))],
    ids=["sd", "flux"],
)
def test_a_hook_that_edits_is_needed_in_both(
    build: Callable[[], Any], hook: Callable[..., Any]
) -> None:
    pipe = build()
    _, plain = drawn(pipe)
    handles = [module.register_forward_hook(hook) for module in attending(pipe)]
    with pytest.raises(ValueError, match=OTHERWISE):
        replayed(pipe, plain)
    maps, run = drawn(pipe)
    np.testing.assert_allclose(replayed(pipe, run), maps.data, atol=1e-5)
    for handle in handles:
        handle.remove()
    with pytest.raises(ValueError, match=OTHERWISE):
        replayed(pipe, run)
    replayed(pipe, plain)
    # What the model of today sees in it may be asked for.
    replayed(pipe, replace(run, predictions=None))


def test_a_hook_that_looks_on_may_come_and_go(tmp_path: Path) -> None:
    pipe = small()
    handles = [module.register_forward_hook(looks) for module in pipe.unet.modules()]
    maps, run = drawn(pipe)
    assert run.hooks.startswith("UNet2DConditionModel: looks, ")
    for handle in handles:
        handle.remove()
    run.save(tmp_path / "run.safetensors")
    loaded = Trajectory.load(tmp_path / "run.safetensors")
    np.testing.assert_allclose(replayed(pipe, loaded), maps.data, atol=1e-5)
    _, plain = drawn(pipe)
    assert plain.hooks == ""
    pipe.unet.mid_block.register_forward_hook(looks)
    replayed(pipe, plain)


def test_a_replaced_method_is_noticed() -> None:
    pipe = small()
    (attention, *_) = attending(pipe)
    own = attention.forward
    attention.forward = lambda *args, **kwargs: 2 * own(*args, **kwargs)
    maps, run = drawn(pipe)
    np.testing.assert_allclose(replayed(pipe, run), maps.data, atol=1e-5)
    del attention.forward
    with pytest.raises(ValueError, match=OTHERWISE):
        replayed(pipe, run)


def test_hooks_of_some_steps_cannot_be_replayed() -> None:
    pipe = small()

    def add(_pipe: Any, step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == 0:
            pipe.unet.mid_block.register_forward_hook(scaled)
        return values

    _, run = drawn(pipe, callback_on_step_end=add)
    with pytest.raises(ValueError, match="put on the denoiser, or taken away, between steps"):
        replayed(pipe, run)
