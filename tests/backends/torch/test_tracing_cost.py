"""What a traced step does besides, counted: a GPU waits for each launch and each call of Python."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from diffusers.models import attention_processor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.backends.torch.test_tracing import draw, hooks_of
from wordlight.backends import trace
from wordlight.backends.torch import taps
from wordlight.backends.torch.attention_calls import AttentionCalls
from wordlight.backends.torch.attention_layers import attention_layers

#: Operations that are no views by name, and launch nothing.
FREE = ("aten._unsafe_view.default", "aten.promote_types.default")


class Kernels(TorchDispatchMode):
    """Counts operations that compute or copy."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.seen[str(func)] += not func.is_view and str(func) not in FREE
        return func(*args, **(kwargs or {}))


def kernels(pipe: StableDiffusionPipeline, steps: int, traced: bool) -> Counter[str]:
    with Kernels() as counted:
        if not traced:
            draw(pipe, num_inference_steps=steps)
            return counted.seen
        with trace(pipe):
            draw(pipe, num_inference_steps=steps)
    return counted.seen


def test_layers_of_a_grid_are_computed_together(
    shared_pipe: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU; what is computed at once on a CPU is less."""
    monkeypatch.setattr(taps, "_TOGETHER_ON_CPU", taps._TOGETHER)
    n_layers = len(attention_layers(shared_pipe.unet))
    with trace(shared_pipe) as run:
        draw(shared_pipe)
    n_grids = len(run.attention[0].means)
    assert n_layers >= 3 * n_grids
    more = [
        kernels(shared_pipe, steps, True).total() - kernels(shared_pipe, steps, False).total()
        for steps in (3, 4)
    ]
    # A grid's queries and keys stacked, their product, scaled, softmax, sum, added; and the step's
    # latents and timestep. Layer by layer it would be six a layer.
    assert more[1] - more[0] <= 7 * n_grids + 2


def test_nothing_waits_for_the_device(shared_pipe: StableDiffusionPipeline) -> None:
    """No number is read from a tensor within the steps, whose reader would wait."""
    waits = ("aten._local_scalar_dense.default", "aten.equal.default", "aten.is_nonzero.default")
    counted = [
        [kernels(shared_pipe, steps, traced)[name] for name in waits]
        for steps in (3, 4)
        for traced in (True, False)
    ]
    plainly = [four - three for three, four in zip(counted[1], counted[3], strict=True)]
    traced = [four - three for three, four in zip(counted[0], counted[2], strict=True)]
    assert traced == plainly


def test_the_mode_sees_attention_alone(
    shared_pipe: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the second step on, torch functions other than attention pass by it."""
    seen: Counter[Any] = Counter()
    own = AttentionCalls.__torch_function__

    def counted(self: Any, func: Any, *rest: Any) -> Any:
        seen[func] += 1
        return own(self, func, *rest)

    monkeypatch.setattr(AttentionCalls, "__torch_function__", counted)
    found = []
    for steps in (3, 4):
        seen.clear()
        with trace(shared_pipe):
            draw(shared_pipe, num_inference_steps=steps)
        found.append(Counter(seen))
    n_layers = len(attention_layers(shared_pipe.unet))
    assert found[1] - found[0] == Counter({F.scaled_dot_product_attention: n_layers})


def test_the_files_of_diffusers_are_as_they_were(shared_pipe: StableDiffusionPipeline) -> None:
    before = hooks_of(shared_pipe)
    names = []

    def note(*_: Any) -> dict[str, Any]:
        names.append(attention_processor.F)
        return {}

    with trace(shared_pipe):
        draw(shared_pipe, callback_on_step_end=note)
    assert all(name is not F for name in names)
    assert attention_processor.F is F
    assert hooks_of(shared_pipe) == before
