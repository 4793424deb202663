"""Forward-mode products of a model's parts, along many directions at once."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from wordlight.backends.backend import MissingCapabilityError
from wordlight.backends.torch.attention_calls import of_torch

#: PyTorch counts the levels of forward mode for the whole process, not thread by thread.
_ONE_AT_A_TIME = threading.RLock()
_NORMS = frozenset((F.layer_norm, F.group_norm, F.rms_norm))


#: Libraries whose modules compute with PyTorch's own operations, and the names of these.
_LIBRARIES = frozenset(("torch", "diffusers", "transformers", "peft", "accelerate", "torchao"))
_OPERATIONS = frozenset(("aten", "prim", "prims"))


class _OwnOperations(TorchDispatchMode):
    """Refuses operations of other libraries, whose changes PyTorch takes for zero."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.namespace not in _OPERATIONS:
            raise MissingCapabilityError(
                f"the model computes with {func}, an operation that isn't PyTorch's own and "
                "has no forward-mode rule: attention, perturbation and reverse mode may work"
            )
        return func(*args, **(kwargs or {}))


def own_operations(modules: Iterable[torch.nn.Module]) -> AbstractContextManager[object]:
    """A context in which operations that PyTorch can't differentiate are refused.

    Those are of libraries whose modules stand in the denoiser; nothing is looked at where none do.
    """
    parts = (part for module in modules for part in module.modules())
    foreign = any(type(part).__module__.partition(".")[0] not in _LIBRARIES for part in parts)
    return _OwnOperations() if foreign else nullcontext()  # type: ignore[no-untyped-call]


class Differentiable(TorchFunctionMode):
    """Stand-ins, during forward mode, for operations that have no rule for it.

    The fused attention kernels have none: attention is written out. Places that are repeated have
    none for many directions at once: they are repeated axis by axis. Norms keep float32 statistics
    of half-precision inputs on some devices, and their tangents come out as float32, which the next
    product refuses: they are computed in float32 and rounded back, as the kernels do.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return of_torch("", torch.nn.Identity(), *args, **kwargs).explicit()
        if func is F.interpolate and (repeated := _repeated(*args, **kwargs)) is not None:
            return repeated
        if func in _NORMS and _is_half(args[0]):
            wide = [a.float() if isinstance(a, torch.Tensor) else a for a in args]
            more = {k: v.float() if isinstance(v, torch.Tensor) else v for k, v in kwargs.items()}
            return func(*wide, **more).to(args[0].dtype)
        return func(*args, **kwargs)


def _repeated(
    inputs: torch.Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    **_: Any,
) -> torch.Tensor | None:
    """Inputs with each place repeated, as ``nearest-exact`` gives a whole number of times as many;
    None of any other interpolation."""
    if mode != "nearest-exact" or size is not None:
        return None
    n_axes = inputs.ndim - 2
    each = scale_factor if isinstance(scale_factor, (tuple, list)) else [scale_factor] * n_axes
    if any(float(factor) % 1 for factor in each):
        return None
    for axis, factor in zip(range(-n_axes, 0), each, strict=True):
        inputs = inputs.repeat_interleave(int(factor), axis)
    return inputs


def _is_half(tensor: Any) -> bool:
    return tensor.dtype in (torch.float16, torch.bfloat16)


@contextmanager
def forward_mode() -> Iterator[None]:
    """A context in which every operation of a model has a rule for forward mode."""
    with _ONE_AT_A_TIME, Differentiable():
        yield


def forward_products(
    function: Callable[[torch.Tensor], torch.Tensor],
    point: torch.Tensor,
    tangents: torch.Tensor,
    chunk: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A function's value at one row, and how it changes along each of many directions.

    ``point`` is ``(1, ...)``, ``tangents`` ``(directions, ...)``. ``chunk`` directions are computed
    at once: more need more memory.
    """

    def along(tangent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value, change, *_ = torch.func.jvp(function, (point,), (tangent,))
        return value, change

    with forward_mode():
        values, changes = torch.func.vmap(along, chunk_size=chunk)(tangents[:, None])
    return values[0], changes[:, 0]


def forward_products_of_rows(
    function: Callable[..., torch.Tensor],
    beside: tuple[Any, ...],
    points: torch.Tensor,
    tangents: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A function's values at several rows, and how each changes along directions of its own.

    ``points`` is ``(rows, ...)``, ``tangents`` ``(rows, directions, ...)``. ``beside`` are the
    function's other arguments, before the point: tensors, or dicts of them, with an axis for rows.
    """

    def of_row(
        beside: tuple[Any, ...], point: torch.Tensor, tangents: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        def along(tangent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            at_row = functools.partial(function, *tree_map(lambda one: one[None], beside))
            value, change, *_ = torch.func.jvp(at_row, (point[None],), (tangent[None],))
            return value[0], change[0]

        values, changes = torch.func.vmap(along)(tangents)
        return values[0], changes

    with forward_mode():
        values, changes = torch.func.vmap(of_row)(beside, points, tangents)
    return values, changes
