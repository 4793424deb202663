"""Compiled modules: what is inside, and how they run as they were written.

A compiled graph calls no hooks, and one that was made while somebody listened would be used again
when nobody does. So what is listened to, or differentiated, runs uncompiled.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from wordlight.backends.torch.module_tree import parts_of

_LOCK = threading.Lock()
_USERS: list[Any] = []
_STANCE: list[Any] = []


def uncompiled(module: torch.nn.Module) -> torch.nn.Module:
    """The module that ``torch.compile(module)`` wrapped, or the module itself."""
    inner = getattr(module, "_orig_mod", module)
    return inner if isinstance(inner, torch.nn.Module) else module


def is_compiled(module: torch.nn.Module) -> bool:
    """Return whether a module or a part of it is compiled, wrapped or in place."""
    return any(
        "_orig_mod" in part._modules or getattr(part, "_compiled_call_impl", None) is not None
        for part in parts_of(module)
    )


@contextmanager
def as_written(module: torch.nn.Module) -> Iterator[None]:
    """Run compiled parts as they were written; several threads may be inside."""
    if not is_compiled(module):
        yield
        return
    with _LOCK:
        if not _USERS:
            _STANCE.append(torch.compiler.set_stance("force_eager"))
        _USERS.append(module)
    try:
        yield
    finally:
        with _LOCK:
            _USERS.remove(module)
            if not _USERS:
                _STANCE.pop().__exit__(None, None, None)
