"""A digest, in a few letters, of the weights that a pipeline computes with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch

#: How many sums of a weight there are, each over an equal stretch of it.
_SUMS = 8


def fingerprint(
    modules: Iterable[torch.nn.Module], decoders: Iterable[torch.nn.Module] = ()
) -> str | None:
    """A digest of every number of each weight, and of the adapters that are on.

    The precision stands in front, and the digest of ``decoders``, which draw the image and change
    no map, behind it (``"float32:0c1f...:9a3b..."``). None where weights are elsewhere (offloaded),
    or packed so that their bytes can't be read.

    All weights are read once, as integers, whose sum any change of one number changes: at the speed
    of the device's memory (14 GB a second on one CPU core), and it waits for the device once.
    """
    made, drawn = _digest(modules), _digest(decoders)
    return None if made is None or drawn is None else f"{made}:{drawn.partition(':')[2]}"


def _digest(modules: Iterable[torch.nn.Module]) -> str | None:
    digest = hashlib.sha256()
    sums: dict[Any, list[torch.Tensor]] = {}
    dtype = ""
    for module in modules:
        for name, weight in module.named_parameters():
            dtype = dtype or str(weight.dtype).removeprefix("torch.")
            digest.update(f"{name.replace('.base_layer', '')}{tuple(weight.shape)}".encode())
            found = _sums(weight)
            if found is None:
                return None
            sums.setdefault(weight.device, []).append(found)
        digest.update(repr(_adapters(module)).encode())
    for of_device in sums.values():
        digest.update(torch.cat(of_device).cpu().numpy().tobytes())
    return f"{dtype}:{digest.hexdigest()[:16]}"


def _sums(weight: torch.Tensor) -> torch.Tensor | None:
    """Sums of a weight's bytes, eight to an integer, which wrap around, and what bytes are left."""
    if weight.is_meta or type(weight.data) is not torch.Tensor:
        return None
    raw = weight.data.contiguous().reshape(-1).view(torch.uint8)
    if raw.storage_offset() % 8:  # Part of a larger tensor, over which integers can't be laid.
        raw = raw.clone()
    whole = len(raw) // (8 * _SUMS) * 8 * _SUMS
    sums = raw[:whole].view(torch.int64).view(_SUMS, -1).sum(1)
    return torch.cat([sums, raw[whole:].to(torch.int64)])


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
