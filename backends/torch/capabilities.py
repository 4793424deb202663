"""Capabilities of each family of denoisers, tried on its tiny pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from wordlight.backends.attention import AttentionQuery
from wordlight.backends.backend import Conditioning
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.tiny import TINY, build_tiny, draw_tiny
from wordlight.backends.trajectory import Trajectory

#: A cell of a family that can.
YES = "✓"
_PROMPT = "a red circle"


@dataclass
class _Tried:
    """A family's tiny pipeline while its cells are tried."""

    family: str

    @cached_property
    def pipe(self) -> Any:
        return build_tiny(self.family)

    @cached_property
    def backend(self) -> TorchBackend:
        return TorchBackend(self.pipe)

    @cached_property
    def traced(self) -> tuple[bool, Trajectory]:
        """True if the traced picture is the untraced one; and its trajectory."""
        plain = draw_tiny(self.family, self.pipe, _PROMPT)
        with self.backend.trace() as run:
            picture = draw_tiny(self.family, self.pipe, _PROMPT)
        return bool(np.array_equal(plain, picture)), run.trajectories[0]

    @property
    def last(self) -> tuple[Any, float, Conditioning]:
        """Latents, timestep and conditioning of the last step."""
        trajectory, backend = self.traced[1], self.backend
        added = backend.told(trajectory, trajectory.steps - 1)
        text = backend.asarray(trajectory.embeddings[None])
        latents = backend.asarray(trajectory.latents[-1][None])
        return latents, float(trajectory.timesteps[-1]), Conditioning(text, added)


def _trace(tried: _Tried) -> bool:
    return tried.traced[0]


def _replay(tried: _Tried) -> bool:
    return _is_attention(tried, AttentionQuery())


def _self_attention(tried: _Tried) -> bool:
    return _is_attention(tried, AttentionQuery(kind="self"))


def _is_attention(tried: _Tried, query: AttentionQuery) -> bool:
    trajectory = tried.traced[1]
    means = tried.backend.attention(trajectory, query, tuple(range(trajectory.steps)))
    return all(bool(np.isfinite(mean.values).all()) for mean in means.means)


def _denoise(tried: _Tried) -> bool:
    with torch.no_grad():
        return bool(tried.backend.denoise(*tried.last).isfinite().all())


def _forward_mode(tried: _Tried) -> bool:
    latents, time, told = tried.last
    change = tried.backend.denoise_jvp(latents, time, told, torch.ones_like(told.embeddings))[1]
    return bool(change.isfinite().all() and change.any())


def _reverse_mode(tried: _Tried) -> bool:
    latents, time, told = tried.last
    with torch.no_grad():
        cotangent = torch.ones_like(tried.backend.denoise(latents, time, told))
    slope = tried.backend.denoise_vjp(latents, time, told, cotangent)
    return bool(slope.isfinite().all() and slope.any())


def _half(tried: _Tried) -> bool:
    """In bfloat16, of a pipeline of its own."""
    pipe = build_tiny(tried.family).to(torch.bfloat16)
    with TorchBackend(pipe).trace() as run:
        draw_tiny(tried.family, pipe, _PROMPT)
    return all(bool(np.isfinite(mean.values).all()) for mean in run.attention[0].means)


#: Columns: what is tried, and the capability that it needs, if any.
CELLS: dict[str, tuple[Callable[[_Tried], bool], str]] = {
    "picture unchanged": (_trace, "trace"),
    "maps replayed": (_replay, "attention"),
    "self-attention": (_self_attention, "self_attention"),
    "perturbation": (_denoise, "denoise"),
    "forward mode": (_forward_mode, "denoise_jvp"),
    "reverse mode": (_reverse_mode, "denoise_vjp"),
    "bfloat16": (_half, "trace"),
}


def matrix(families: Iterable[str] = TINY) -> dict[str, dict[str, str]]:
    """Try every cell of some families' tiny pipelines.

    Returns:
        For each family a cell for each column: ``YES``, or why not.
    """
    return {family: _row(_Tried(family)) for family in families}


def _row(tried: _Tried) -> dict[str, str]:
    try:
        lacks = tried.backend.model.family.lacks
    except ValueError:
        denoiser = type(tried.pipe.transformer).__name__
        return dict.fromkeys(CELLS, f"the denoiser ({denoiser}) is of no family that is known")
    return {
        name: _cell(tried, attempt, lacks.get(needs)) for name, (attempt, needs) in CELLS.items()
    }


def _cell(tried: _Tried, attempt: Callable[[_Tried], bool], lacks: str | None) -> str:
    if lacks is not None:
        return lacks
    try:
        return YES if attempt(tried) else "wrong"
    except Exception as error:
        return f"{type(error).__name__}: {_first_clause(error)}"


def _first_clause(error: Exception) -> str:
    return str(error).partition(":")[0].partition("\n")[0]
