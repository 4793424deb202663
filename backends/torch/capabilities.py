"""Capabilities of each family of denoisers, tried on its tiny pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from wordlight.backends.attention import AttentionMeans, AttentionQuery, OtherKeys
from wordlight.backends.backend import Conditioning
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.compiled import is_compiled
from wordlight.backends.torch.model import Model
from wordlight.backends.torch.tiny import TINY, build_tiny, draw_tiny, picture, upper_half
from wordlight.backends.torch.tiny.as_run import OTHERS, SAME, NotOfferedError, Way
from wordlight.backends.torch.tracing import Tracing
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
    def plain(self) -> npt.NDArray[Any]:
        """The untraced picture."""
        drawn: npt.NDArray[Any] = draw_tiny(self.family, self.pipe, _PROMPT)
        return drawn

    @cached_property
    def _run(self) -> tuple[npt.NDArray[Any], Tracing]:
        with self.backend.trace() as run:
            return draw_tiny(self.family, self.pipe, _PROMPT), run

    @property
    def traced(self) -> tuple[bool, Trajectory]:
        """True if the traced picture is the untraced one; and its trajectory."""
        drawn, run = self._run
        return bool(np.array_equal(self.plain, drawn)), run.trajectories[0]

    @property
    def streamed(self) -> AttentionMeans:
        """The traced attention."""
        return self._run[1].attention[0]

    @property
    def last(self) -> tuple[Any, float, Conditioning]:
        """Latents, timestep and conditioning of the last step."""
        trajectory, backend = self.traced[1], self.backend
        added = backend.step_conditioning(trajectory, trajectory.steps - 1)
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
    return _is_finite(means)


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


def _open_vocabulary(tried: _Tried) -> bool:
    """Attention to words beside the prompt: here its own first ones once more."""
    trajectory, backend = tried.traced[1], tried.backend
    text = backend.asarray(trajectory.embeddings)
    keys = OtherKeys.of(text[:2], [((0,), ()), ((1,), ())], len(text), [None, None])
    steps = tuple(range(trajectory.steps))
    return _is_finite(backend.attention(trajectory, AttentionQuery(), steps, keys))


def _concept_attention(tried: _Tried) -> bool:
    trajectory, backend = tried.traced[1], tried.backend
    concepts = backend.asarray(trajectory.embeddings[:2])
    steps = tuple(range(trajectory.steps))
    return _is_finite(backend.concept_attention(trajectory, AttentionQuery(), steps, concepts))


def _as_run(way: Way, *, same: bool) -> Callable[[_Tried], bool]:
    """A pipeline of its own, run in a way that people run it in: the picture is the untraced one,
    the replay's maps are the traced ones and, where ``same``, those of the plain run."""

    def attempt(tried: _Tried) -> bool:
        pipe, call = way(build_tiny(tried.family), picture(), upper_half())
        backend = TorchBackend(pipe)
        plain = _untraced(tried, pipe, call)
        with backend.trace() as run:
            drawn = _drawn(tried.family, pipe, call)
        (trajectory,), (streamed,) = run.trajectories, run.attention
        steps = tuple(range(trajectory.steps))
        replayed = backend.attention(trajectory, AttentionQuery(), steps)
        rounding = _ROUNDING if backend.dtype == "float32" else _HALF_ROUNDING
        alike = _apart(streamed, replayed) < rounding
        if plain is not None and not np.array_equal(plain, drawn):
            return False
        if not same:
            return alike
        unchanged = _apart(streamed, tried.streamed) < rounding
        return alike and unchanged and bool(np.abs(drawn - tried.plain).max() < _ROUNDING)

    return attempt


def _untraced(tried: _Tried, pipe: Any, call: Mapping[str, Any]) -> npt.NDArray[Any] | None:
    """The picture without tracing; None of a compiled denoiser, which runs uncompiled while it is
    traced, and whose compiling takes a while."""
    if is_compiled(Model.of(pipe).whole):
        return None
    try:
        return _drawn(tried.family, pipe, call)
    except Exception as error:
        what = f"{type(error).__name__}: {_first_clause(error)}"
        raise NotOfferedError(f"the pipeline itself fails, {what}") from None


def _drawn(family: str, pipe: Any, call: Mapping[str, Any]) -> npt.NDArray[Any]:
    with torch.random.fork_rng(devices=[]):
        # Some pipelines encode pictures with noise of no generator.
        torch.manual_seed(0)
        given = {"prompt": _PROMPT, **call}
        drawn: npt.NDArray[Any] = draw_tiny(family, pipe, given.pop("prompt"), **given)
        return drawn


#: How far attention may be apart (``_apart``), and pixels, that another order of additions has
#: rounded otherwise. In half precision the tiny models' is 0.08 apart at most; that of tokens taken
#: for their neighbours 0.5 and more.
_ROUNDING, _HALF_ROUNDING = 1e-4, 0.15


def _apart(one: AttentionMeans, other: AttentionMeans) -> float:
    """The distance of two runs' attention, relative to how far it is from an even one; infinite
    where they are of other layers."""
    if len(one.means) != len(other.means) or not _is_finite(one):
        return float("inf")
    distances = []
    for own, wanted in zip(one.means, other.means, strict=True):
        places = tuple(range(1, wanted.values.ndim))
        uneven = wanted.values - wanted.values.mean(places, keepdims=True)
        apart = own.values - wanted.values
        distances.append(float(np.linalg.norm(apart) / np.linalg.norm(uneven)))
    return max(distances)


def _is_finite(means: AttentionMeans) -> bool:
    return all(bool(np.isfinite(mean.values).all()) for mean in means.means)


#: Columns: what is tried, and the capability that it needs, if any.
CELLS: dict[str, tuple[Callable[[_Tried], bool], str]] = {
    "picture unchanged": (_trace, "trace"),
    "maps replayed": (_replay, "attention"),
    "self-attention": (_self_attention, "self_attention"),
    "perturbation": (_denoise, "denoise"),
    "forward mode": (_forward_mode, "denoise_jvp"),
    "reverse mode": (_reverse_mode, "denoise_vjp"),
    "concept attention": (_concept_attention, "concept_attention"),
    "open vocabulary": (_open_vocabulary, "attention_keys"),
}
#: Columns of the ways in which people run pipelines.
WAYS: dict[str, tuple[Callable[[_Tried], bool], str]] = {
    name: (_as_run(way, same=name in SAME), "trace") for name, way in {**OTHERS, **SAME}.items()
}


def matrix(
    families: Iterable[str] = TINY,
    cells: Mapping[str, tuple[Callable[[_Tried], bool], str]] | None = None,
) -> dict[str, dict[str, str]]:
    """Try the cells of some families' tiny pipelines; all there are if None.

    Returns:
        For each family a cell for each column: ``YES``, or why not.
    """
    tried = {**CELLS, **WAYS} if cells is None else cells
    return {family: _row(_Tried(family), tried) for family in families}


def _row(
    tried: _Tried, cells: Mapping[str, tuple[Callable[[_Tried], bool], str]]
) -> dict[str, str]:
    backend = tried.backend
    return {
        name: _cell(tried, attempt, _lacks(backend, needs))
        for name, (attempt, needs) in cells.items()
    }


def _lacks(backend: TorchBackend, needs: str) -> str | None:
    """Why a model lacks a capability; None where it has it."""
    if needs in backend.lacks:
        return backend.lacks[needs]
    # Of pipelines, not of families.
    return None if needs in backend.capabilities else "its text doesn't attend to the picture"


def _cell(tried: _Tried, attempt: Callable[[_Tried], bool], lacks: str | None) -> str:
    if lacks is not None:
        return lacks
    try:
        return YES if attempt(tried) else "wrong"
    except NotOfferedError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {_first_clause(error)}"


def _first_clause(error: Exception) -> str:
    return str(error).partition(":")[0].partition("\n")[0]
