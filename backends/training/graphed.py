"""Updates as one CUDA graph: a small network's kernels take less time than their launches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Update = Callable[..., dict[str, torch.Tensor]]

#: Calls before the graph is captured; libraries choose kernels and optimizers make their state.
_EAGER_CALLS = 3


def is_gpu(device: str) -> bool:
    """Return True for a CUDA device."""
    return torch.device(device).type == "cuda"


def on_device(model: torch.nn.Module, device: str) -> Any:
    """Return a model on a device; on a CPU convolutions are a fifth faster with channels last."""
    if is_gpu(device):
        return model.to(device)
    return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def replayed(function: Update, device: str, eager: bool = False) -> Update:
    """Return a function of tensors by name as one for a device: on a GPU replayed as a graph, or,
    if ``eager``, called with its tensors on the card."""
    if not is_gpu(device):
        return function
    if eager:
        return lambda **inputs: function(**{k: v.to(device) for k, v in inputs.items()})
    return Graphed(function, device)


class Graphed:
    """A function of tensors on the GPU, captured at its fourth call and replayed from then on.

    The function gets the tensors by name, on ``device``, always in the same shapes, and returns
    tensors by name. What it returns is overwritten by the next call. It must not ask for a value
    (``item``, a mask as an index), since a graph can't wait for one: CUDA says so then.
    """

    def __init__(self, function: Update, device: str) -> None:
        self._function = function
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._calls = 0
        self._graph = torch.cuda.CUDAGraph()
        self._inputs: dict[str, torch.Tensor] = {}
        self._outputs: dict[str, torch.Tensor] = {}

    def __call__(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        for name, value in inputs.items():
            if name not in self._inputs:
                self._inputs[name] = torch.empty_like(value, device=self._device)
            self._inputs[name].copy_(value.pin_memory(), non_blocking=True)
        if self._calls < _EAGER_CALLS:
            self._outputs = self._call_beside()
        else:
            if self._calls == _EAGER_CALLS:
                with torch.cuda.graph(self._graph, stream=self._stream):
                    self._outputs = self._function(**self._inputs)
            self._graph.replay()
        self._calls += 1
        return self._outputs

    def _call_beside(self) -> dict[str, torch.Tensor]:
        """Call the function on the stream that the graph is captured on."""
        here = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            outputs = self._function(**self._inputs)
        here.wait_stream(self._stream)
        return outputs
