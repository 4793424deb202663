"""The result of tracing a pipeline, whatever the framework."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from wordlight.backends.attention import AttentionMeans, AttentionQuery
from wordlight.backends.trajectory import Trajectory


class Trace(ABC):
    """A record of a pipeline, or a backend, inside a ``with trace(pipe) as trace`` block.

    ``query`` says which attention was averaged while it ran.
    """

    query: AttentionQuery

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(self, *error: object) -> None: ...

    @property
    @abstractmethod
    def trajectories(self) -> tuple[Trajectory, ...]:
        """One an image, in the pipeline's order.

        Raises ValueError where the pipeline made no image, or was given embeddings and not words.
        """

    @property
    @abstractmethod
    def attention(self) -> tuple[AttentionMeans, ...]:
        """The averaged cross-attention of each image, in the same order."""

    @property
    def negative_attention(self) -> tuple[AttentionMeans, ...]:
        """The attention to the negative prompt, where that was asked for.

        Raises ValueError where it wasn't, or where the run had no negative branch.
        """
        raise ValueError(
            "this trace looked at the prompt's words alone: make it by trace(pipe, negative=True), "
            "or replay a trajectory, DAAM(backend).attribute(trajectory, words_of='negative')"
        )

    def check_words(self, image: int) -> None:  # noqa: B027 - most traces have one prompt a run
        """Raise ValueError where an image's attention isn't all to the words of its trajectory."""
