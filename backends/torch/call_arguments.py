"""A denoiser's conditioning as arrays by name, and back.

Lists and dicts become names with dots (``down_block_additional_residuals.0``). A name that ends in
``*`` has no axis for rows, one that ends in ``=`` is a plain number. All begin with ``+``, but the
further conditioning that a text encoder makes.
"""

from __future__ import annotations

import functools
import inspect
import operator
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

#: The arguments of one call, by name.
CallArguments = dict[str, Any]
Found = TypeVar("Found")
#: Ends of names whose arrays have no row of their own for each row of a batch.
NOT_BY_ROW = ("*", "=")
#: What the text encoders of Stable Diffusion XL make besides the embeddings, by the names that
#: trajectories have for it on every framework.
_ENCODED = {
    "added_cond_kwargs.text_embeds": "text_embeds",
    "added_cond_kwargs.time_ids": "time_ids",
}
_BACK = {name: path for path, name in _ENCODED.items()}

#: The noise level of a step, which the denoiser isn't told: one a row.
NOISE_LEVEL = "+noise_level"


class NotRecordableError(ValueError):
    """An argument that is no array and no number, so that a replay can't give it again."""


def flatten(told: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors and plain numbers of nested arguments by their paths.

    Raises NotRecordableError, naming the argument.
    """
    found: dict[str, Any] = {}

    def walk(path: str, value: Any) -> None:
        if value is None:
            return
        if isinstance(value, (torch.Tensor, bool, int, float)):
            found[_ENCODED.get(path, f"+{path}")] = value
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                walk(f"{path}.{key}", inner)
        elif isinstance(value, (list, tuple)):
            for index, inner in enumerate(value):
                walk(f"{path}.{index}", inner)
        else:
            raise NotRecordableError(f"the denoiser was given {path}, a {type(value).__name__}")

    for name, value in told.items():
        walk(name, value)
    return found


def unflatten(added: Mapping[str, torch.Tensor]) -> CallArguments:
    """Nested arguments of what ``flatten`` gave, each array with an axis for rows in front."""
    told: CallArguments = {}
    for name, value in added.items():
        given: Any
        path = _BACK.get(name, name.removeprefix("+"))
        if path.endswith("*"):
            path, given = path[:-1], value[0]
        elif path.endswith("="):
            path, given = path[:-1], value[0].item()
        else:
            given = value
        *outer, last = path.split(".")
        inside = told
        for key in outer:
            inside = inside.setdefault(key, {})
        inside[last] = given
    return {name: _lists(value) for name, value in told.items()}


def _lists(value: Any) -> Any:
    """Dicts whose keys count up from 0 as lists; as tuples, as sizes are, where all are numbers."""
    if not isinstance(value, dict):
        return value
    if value and all(key == str(index) for index, key in enumerate(value)):
        numbers = all(isinstance(inner, (int, float)) for inner in value.values())
        return (tuple if numbers else list)(_lists(inner) for inner in value.values())
    return {key: _lists(inner) for key, inner in value.items()}


def same_call(
    one: tuple[tuple[Any, ...], Mapping[str, Any]], other: tuple[tuple[Any, ...], Mapping[str, Any]]
) -> bool:
    """Return whether two calls have the very same positional and named arguments."""
    (args, kwargs), (other_args, other_kwargs) = one, other
    return (
        len(args) == len(other_args)
        and kwargs.keys() == other_kwargs.keys()
        and all(map(operator.is_, args, other_args))
        and all(value is other_kwargs[name] for name, value in kwargs.items())
    )


@contextmanager
def called_as_given(module: torch.nn.Module) -> Iterator[None]:
    """Have calls of a module raise ValueError where a hook changes their arguments.

    What was recorded of a run has been through its hooks.
    """
    if not module._forward_pre_hooks:
        yield
        return
    given: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def first(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal given
        given = (args, dict(kwargs))

    def last(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not same_call(given, (args, kwargs)):
            raise ValueError(
                "a hook changes what the denoiser is called with, and a recorded run has been "
                "through it already: remove the hook before runs are explained"
            )

    handles = (
        module.register_forward_pre_hook(first, with_kwargs=True, prepend=True),
        module.register_forward_pre_hook(last, with_kwargs=True),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


_signature = functools.lru_cache(64)(inspect.signature)


def arguments_of(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> CallArguments:
    """The arguments of one call of a module, by name."""
    signature = _signature(type(module).forward)
    bound = dict(signature.bind(module, *args, **kwargs).arguments)
    bound.pop("self", None)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            bound |= bound.pop(name, {})
    return bound


#: What was read of tensors, while they live: to look into one waits for the device.
_READ: dict[tuple[Any, int], tuple[Any, int, Any]] = {}


def remembered(read: Callable[[torch.Tensor], Found], tensor: torch.Tensor) -> Found:
    """Return ``read`` of a tensor, computed once as long as the tensor stays the same."""
    key = (read.__code__, id(tensor))
    version = -1 if tensor.is_inference() else tensor._version
    known = _READ.get(key)
    if known is not None and known[0]() is tensor and known[1] == version:
        found: Found = known[2]
        return found
    made = read(tensor)
    for old in [k for k, (there, _, _) in _READ.items() if there() is None]:
        _READ.pop(old, None)
    _READ[key] = (weakref.ref(tensor), version, made)
    return made
