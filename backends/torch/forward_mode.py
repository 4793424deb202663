"""Forward-mode products of a model's parts, along many directions at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


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

    # The fused attention kernels have no forward-mode rule; the plain one has.
    with sdpa_kernel(SDPBackend.MATH):
        values, changes = torch.func.vmap(along, chunk_size=chunk)(tangents[:, None])
    return values[0], changes[:, 0]
