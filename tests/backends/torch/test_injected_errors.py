"""Errors put into every function that listens to a pipeline, and into the pipeline at every step:
the user's call goes on, or fails by its own error, and nothing is left behind."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.overrides import _get_current_function_mode_stack

import wordlight.backends.backend
from wordlight import trace
from wordlight.attribution import DAAM
from wordlight.backends.torch import attention_calls, pipeline_calls
from wordlight.backends.torch.tiny import build_tiny, draw_tiny

PROMPT = "a red circle"
FAMILIES = ["sd3", "flux-dev", "ltx"]
BACKENDS = Path(wordlight.backends.backend.__file__).parent
#: What PyTorch and pipelines call themselves: an error at its very beginning, where nothing is done
#: yet, is nobody's to catch.
ENTRIES = {
    "_wrapper.<locals>.wrapper",
    "_wrapper.<locals>.wrapper.<locals>.<listcomp>",
    "PipelineRecorder.call_began",
    "PipelineRecorder.call_ended",
    "PipelineRecorder._here",
    "PipelineRecorder._here.<locals>.<listcomp>",
    "_Running._before",
    "_Running._after",
    "AttentionCalls._enter_module",
    "AttentionCalls._leave_module",
    "AttentionCalls.__torch_function__",
    "AttentionCalls.through_gate",
    "AttentionCalls._show",
    "_Kernels._gate.<locals>.gate",
    "_Kernels._functional.<locals>.<lambda>",
}


class InjectedError(RuntimeError):
    pass


@cache
def _is_ours(file: str) -> bool:
    path = Path(file)
    return path.is_relative_to(BACKENDS) and "tiny" not in path.parts


class Injector:
    """A trace function for ``sys.settrace`` that counts our functions' calls inside a pipeline's,
    and raises in one of them."""

    def __init__(
        self, name: str | None = None, nth: int = 0, kind: type[BaseException] = InjectedError
    ) -> None:
        self.seen: Counter[str] = Counter()
        self.raised, self._inside = False, False
        self._name, self._nth, self._kind = name, nth, kind
        self._generators: dict[int, FrameType] = {}

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or not _is_ours(code.co_filename):
            return
        name = code.co_qualname  # type: ignore[attr-defined]
        self._inside = self._inside or name == "_wrapper.<locals>.wrapper"
        # A generator that goes on has begun.
        if not self._inside or id(frame) in self._generators:
            return
        if code.co_flags & inspect.CO_GENERATOR:
            self._generators[id(frame)] = frame
        self.seen[name] += 1
        if name == self._name and self.seen[name] == self._nth + 1:
            self.raised = True
            raise self._kind(f"injected into {name}")


@cache
def pipe_of(family: str) -> Any:
    return build_tiny(family)


@cache
def plain(family: str) -> tuple[Any, torch.Tensor]:
    """The untraced picture, and the state of PyTorch's random numbers after it."""
    torch.manual_seed(5)
    return draw_tiny(family, pipe_of(family), PROMPT), torch.get_rng_state()


@cache
def at_rest(family: str) -> list[str]:
    # transformers puts hooks of its own on a text encoder when it first runs.
    plain(family)
    return _state(pipe_of(family))


def _state(pipe: Any) -> list[str]:
    """All that listening puts somewhere, and what a pipeline has of its own of it."""
    found = []
    for name, part in pipe.components.items():
        for inner, module in part.named_modules() if isinstance(part, torch.nn.Module) else ():
            kinds = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs")
            kinds += ("_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called")
            found += [f"{name}.{inner}: {kind}" for kind in kinds if getattr(module, kind)]
            if hasattr(module, "processor"):
                found.append(f"{name}.{inner}: {id(module.processor)}")
    kernels = attention_calls.KERNELS
    found += ["kernels"] * bool(kernels.listeners or kernels.own or kernels.files)
    found += ["listeners"] * bool(pipeline_calls._LISTENERS or pipeline_calls._WRAPPERS)
    found += ["unheard"] * bool(getattr(pipeline_calls._UNHEARD, "on", False))
    found += ["mode"] * len(_get_current_function_mode_stack())
    found += ["no gradients"] * (not torch.is_grad_enabled())
    found += [
        file
        for file, module in list(sys.modules.items())
        if file.startswith("diffusers.") and vars(module).get("F", F) is not F
    ]
    found.append(f"scheduler {id(pipe.scheduler)}, {type(pipe).__call__.__code__}")
    return found


def check_untouched(family: str) -> None:
    pipe, (picture, _) = pipe_of(family), plain(family)
    assert _state(pipe) == at_rest(family)
    np.testing.assert_array_equal(draw_tiny(family, pipe, PROMPT), picture)


def traced(family: str, injector: Injector) -> tuple[Any, Any]:
    torch.manual_seed(5)
    with trace(pipe_of(family)) as run:
        before = sys.gettrace()
        sys.settrace(injector)
        try:
            picture = draw_tiny(family, pipe_of(family), PROMPT)
        finally:
            sys.settrace(before)
    return picture, run


def functions_that_listen(family: str) -> Counter[str]:
    """The number of calls of each, in a run that is as the untraced one."""
    at_rest(family)
    counting = Injector()
    picture, run = traced(family, counting)
    np.testing.assert_array_equal(picture, plain(family)[0])
    assert torch.equal(torch.get_rng_state(), plain(family)[1])
    assert run.trajectories
    assert len(counting.seen) > 100
    return counting.seen


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_an_error_in_any_function_that_listens(family: str) -> None:
    for name, count in functions_that_listen(family).items():
        for nth in {0, count - 1}:
            injector = Injector(name, nth)
            try:
                picture, run = traced(family, injector)
            except InjectedError:
                assert name in ENTRIES
            else:
                np.testing.assert_array_equal(picture, plain(family)[0])
                assert torch.equal(torch.get_rng_state(), plain(family)[1])
                with pytest.raises(ValueError, match="njected"):
                    DAAM.from_trace(run)
            assert injector.raised, name
            assert _state(pipe_of(family)) == at_rest(family), name
        check_untouched(family)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["flux-dev"])
def test_an_interrupt_in_any_function_that_listens(family: str) -> None:
    for name in functions_that_listen(family):
        with pytest.raises(KeyboardInterrupt):
            traced(family, Injector(name, 0, KeyboardInterrupt))
        check_untouched(family)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "kind", [InjectedError, pytest.param(KeyboardInterrupt, marks=pytest.mark.slow)]
)
def test_an_error_of_the_pipeline_at_every_step(family: str, kind: type[BaseException]) -> None:
    """It is the user's own, as it was raised; the runs before it in the block are there."""
    at_rest(family)
    pipe = pipe_of(family)
    block = next(iter(pipe.transformer.transformer_blocks))
    places = {
        "step": (pipe.scheduler, "step", 2),
        "denoiser": (pipe.transformer, "forward", 2),
        "block": (block, "forward", 2),
        "decoder": (pipe.vae, "decode", 1),
        "encoder": (pipe, "encode_prompt", 1),
    }
    for owner, method, count in places.values():
        for nth in range(count):
            own, calls = getattr(owner, method), Counter[str]()

            def failing(
                *args: Any,
                own: Any = own,
                calls: Counter[str] = calls,
                nth: int = nth,
                **kwargs: Any,
            ) -> Any:
                calls["n"] += 1
                if calls["n"] == nth + 1:
                    raise kind("the pipeline's own")
                return own(*args, **kwargs)

            with trace(pipe) as run:
                draw_tiny(family, pipe, PROMPT)
                vars(owner)[method] = failing
                try:
                    with pytest.raises(kind, match="pipeline's own"):
                        draw_tiny(family, pipe, PROMPT)
                finally:
                    del vars(owner)[method]
            assert len(run.trajectories) == 1
            assert "circle" in DAAM.from_trace(run)
            check_untouched(family)
    torch.manual_seed(5)
    with trace(pipe):
        draw_tiny(family, pipe, PROMPT)
    assert torch.equal(torch.get_rng_state(), plain(family)[1])
