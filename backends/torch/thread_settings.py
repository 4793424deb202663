"""What PyTorch keeps for each thread by itself, brought from one thread into another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch
from torch import overrides
from torch.utils import _python_dispatch as dispatch


def settings_of_thread(device: torch.device) -> Callable[[], AbstractContextManager[None]]:
    """Return a block for other threads in which PyTorch is set as in this one now.

    It brings gradients on or off, inference mode, autocast (of the CPU and of ``device``), the
    default device and other modes, hooks of saved tensors, and on CUDA the current device and the
    current stream of ``device``.
    """
    gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    cached = torch.is_autocast_cache_enabled()
    kinds = [k for k in ("cpu", device.type) if torch.amp.is_autocast_available(k)]
    casts = {k: torch.get_autocast_dtype(k) for k in kinds if torch.is_autocast_enabled(k)}
    functions = overrides._get_current_function_mode_stack()
    dispatched = dispatch._get_current_dispatch_mode_stack()
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)
    cuda = device.type == "cuda"
    current = torch.cuda.current_device() if cuda else None
    stream = torch.cuda.current_stream(device) if cuda else None

    @contextmanager
    def as_there() -> Iterator[None]:
        with ExitStack() as stack:
            if cuda:
                # The stream's device becomes the current one.
                stack.enter_context(torch.cuda.stream(stream))
                stack.enter_context(torch.cuda.device(current))
            if inference:
                stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.set_grad_enabled(gradients))
            for kind, dtype in casts.items():
                stack.enter_context(torch.autocast(kind, dtype, cache_enabled=cached))
            if hooks is not None:
                stack.enter_context(torch.autograd.graph.saved_tensors_hooks(*hooks))
            # They are on already: entered once more, a mode would forget what was before it.
            for mode in functions:
                overrides._push_mode(mode)
                stack.callback(overrides._pop_mode)
            for mode in dispatched:
                dispatch._push_mode(mode)
                stack.callback(dispatch._pop_mode, getattr(mode, "_mode_key", None))
            yield

    return as_there
