"""A digest, in a few letters, of the weights that a pipeline computes with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch

#: Numbers taken of each weight, spread over it.
_TAKEN = 8


def fingerprint(modules: Iterable[torch.nn.Module]) -> str | None:
    """A digest of some numbers of each weight, and of the adapters that are on, with the precision
    in front (``"float32:0c1f..."``); None where weights are elsewhere (offloaded).

    It waits for the device once.
    """
    digest = hashlib.sha256()
    parts: dict[Any, list[torch.Tensor]] = {}
    dtype = ""
    for module in modules:
        for name, weight in module.named_parameters():
            if weight.is_meta:
                return None
            dtype = dtype or str(weight.dtype).removeprefix("torch.")
            digest.update(f"{name.replace('.base_layer', '')}{tuple(weight.shape)}".encode())
            flat = weight.detach().reshape(-1)
            some = flat[:: max(1, len(flat) // _TAKEN)][:_TAKEN]
            parts.setdefault(weight.device, []).append(some.double())
        digest.update(repr(_adapters(module)).encode())
    for some_parts in parts.values():
        digest.update(torch.cat(some_parts).cpu().numpy().tobytes())
    return f"{dtype}:{digest.hexdigest()[:16]}"


def _adapters(module: torch.nn.Module) -> list[Any]:
    """The adapters that peft has switched on in a module's layers, with their scales."""
    found = []
    for name, layer in module.named_modules():
        active = getattr(layer, "active_adapters", None)
        if isinstance(active, (list, tuple)) and hasattr(layer, "scaling"):
            off = bool(getattr(layer, "disable_adapters", False))
            scales = [(one, layer.scaling.get(one)) for one in active]
            found.append((name, off, bool(getattr(layer, "merged", False)), scales))
    return found
