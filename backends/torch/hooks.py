"""What users put on a denoiser beside its weights: hooks, and methods of their own."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import torch

from wordlight.backends.torch.module_tree import named_parts

#: diffusers' own hooks that move weights, and change no number.
_MOVERS = ("group_offloading", "layer_execution", "lazy_prefetch")
#: Whose hooks aren't looked for: ours listen, and accelerate's move weights.
_NOT_USERS = ("wordlight", "accelerate")


def hooks_on(modules: Iterable[torch.nn.Module]) -> tuple[str, ...]:
    """Return the hooks and replaced ``forward`` methods on modules and their parts, each with its
    part's name (``"mid_block: steer"``), but for those of this library and of offloading."""
    found = []
    for module in modules:
        for name, part in named_parts(module):
            if part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part):
                found += [f"{name or type(part).__name__}: {own}" for own in _of_part(part)]
    return tuple(found)


def n_hooks(parts: Iterable[torch.nn.Module]) -> int:
    """Return the number of PyTorch's hooks on some modules, whosever they are."""
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in parts)


def _of_part(part: torch.nn.Module) -> list[str]:
    hooks = [*part._forward_pre_hooks.values(), *part._forward_hooks.values()]
    users = [hook for hook in map(_innermost, hooks) if not _module_of(hook).startswith(_NOT_USERS)]
    found = [_name_of(hook) for hook in users]
    registry = vars(part).get("_diffusers_hook")
    if registry is not None:
        found += [name for name in registry.hooks if not name.startswith(_MOVERS)]
    elif "forward" in vars(part) and "_hf_hook" not in vars(part):
        found.append(f"forward replaced by {_name_of(_innermost(vars(part)['forward']))}")
    return found


def _innermost(hook: Any) -> Any:
    return _innermost(hook.func) if isinstance(hook, functools.partial) else hook


def _module_of(hook: Any) -> str:
    return str(getattr(hook, "__module__", None) or type(hook).__module__)


def _name_of(hook: Any) -> str:
    return str(getattr(hook, "__qualname__", None) or type(hook).__qualname__)
