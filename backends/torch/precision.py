"""The precision of float32 products on a GPU: exact, or with the ten bits of tensor cores."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import torch

P = ParamSpec("P")
R = TypeVar("R")

#: As PyTorch's own ``set_float32_matmul_precision`` calls them, and as its switches do.
PRECISIONS = {"highest": "ieee", "high": "tf32"}


class _Setting:
    """The process's setting, held by blocks of its threads: those that ask for the same go on at
    once, others wait until they have ended. A block inside one of the same thread never waits."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._asked: str | None = None
        self._blocks = 0
        self._thread = threading.local()

    @contextmanager
    def hold(self, precision: str | None) -> Iterator[None]:
        """Hold it at a precision; as PyTorch is set where None."""
        if getattr(self._thread, "holds", False):
            with _set_to(precision):
                yield
            return
        with self._free:
            self._free.wait_for(lambda: not self._blocks or self._asked == precision)
            if not self._blocks:
                self._asked, self._set = precision, _set_to(precision)
                self._set.__enter__()
            self._blocks += 1
        self._thread.holds = True
        try:
            yield
        finally:
            self._thread.holds = False
            with self._free:
                self._blocks -= 1
                if not self._blocks:
                    self._set.__exit__(None, None, None)
                    self._free.notify_all()


_SETTING = _Setting()


def multiplying(precision: str | None) -> AbstractContextManager[None]:
    """Return a block in which convolutions and matrix products of float32 on CUDA are computed in
    a precision; the settings are put back. With None they stay as they are.

    The settings are the process's: a thread that wants another precision waits for the block's end.
    """
    return _SETTING.hold(precision)


def in_force(asked: str | None, device: torch.device, dtype: torch.dtype) -> str:
    """Return the precision in which a model's float32 is multiplied, as ``Provenance`` has it.

    ``"highest"`` is exact, ``"high"`` is TF32, ``"high (convolutions)"`` is TF32 in convolutions
    alone, which is how PyTorch is set; "" for a model of other numbers.
    """
    if dtype != torch.float32:
        return ""
    if device.type != "cuda":
        return "highest"
    if asked is not None:
        return asked
    convolutions, products = (one == "tf32" for one in _get())
    if convolutions and products:
        return "high"
    return {(True, False): "high (convolutions)", (False, True): "high (matrix products)"}.get(
        (convolutions, products), "highest"
    )


def in_precision(
    method: Callable[Concatenate[Any, P], R],
) -> Callable[Concatenate[Any, P], R]:
    """Have a backend's method compute in the precision that it was asked for, its
    ``asked_precision``."""

    @wraps(method)
    def computing(self: Any, *args: P.args, **kwargs: P.kwargs) -> R:
        asked = self.asked_precision
        if asked is None and self.model.device.type != "cuda":
            return method(self, *args, **kwargs)
        with multiplying(asked):
            return method(self, *args, **kwargs)

    return cast("Callable[Concatenate[Any, P], R]", computing)


@contextmanager
def _set_to(precision: str | None) -> Iterator[None]:
    if precision is None:
        yield
        return
    before = _get()
    _set((PRECISIONS[precision],) * 2)
    try:
        yield
    finally:
        _set(before)


def _get() -> tuple[str, str]:
    """The settings of convolutions and of matrix products."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):  # PyTorch 2.9, whose older switches then refuse to be read
        return cudnn.conv.fp32_precision, matmul.fp32_precision
    named = {True: "tf32", False: "ieee"}
    return named[cudnn.allow_tf32], named[matmul.allow_tf32]


def _set(values: tuple[str, str]) -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    if hasattr(cudnn, "conv"):
        cudnn.conv.fp32_precision, matmul.fp32_precision = values
    else:
        cudnn.allow_tf32, matmul.allow_tf32 = (value == "tf32" for value in values)
