"""``trace(backend)``: what is sampled inside a block, with its attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from wordlight.backends.attention import AttentionMeans, AttentionQuery
from wordlight.backends.traces import Trace
from wordlight.backends.trajectory import Trajectory


class Tracing(Trace):
    """A context manager round calls of ``FlaxBackend.sample``; see ``wordlight.backends.trace``.

    Args:
        during: makes the block in which a backend adds its runs to this trace.
        query: the attention that is averaged.
    """

    def __init__(
        self, during: Callable[[Tracing], AbstractContextManager[None]], query: AttentionQuery
    ) -> None:
        self.query = query
        self._during = during
        self._trajectories: list[Trajectory] = []
        self._attention: list[AttentionMeans] = []

    def __enter__(self) -> Tracing:
        self._block = self._during(self)
        self._block.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._block.__exit__(*error)  # type: ignore[arg-type]

    def add(self, trajectories: Sequence[Trajectory], attention: Sequence[AttentionMeans]) -> None:
        """Take in one run's images."""
        self._trajectories += trajectories
        self._attention += attention

    @property
    def trajectories(self) -> tuple[Trajectory, ...]:
        self._check()
        return tuple(self._trajectories)

    @property
    def attention(self) -> tuple[AttentionMeans, ...]:
        self._check()
        return tuple(self._attention)

    def _check(self) -> None:
        if not self._trajectories:
            raise ValueError("nothing was traced: call the backend's sample inside the block")
