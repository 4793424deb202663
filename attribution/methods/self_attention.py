"""Self-attention of one grid as a matrix, its heads weighted, and the methods that read it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.sparse.linalg import eigs

from wordlight.attribution.methods.attention_average import Maps, merge_words
from wordlight.attribution.methods.by_stream import ByStream
from wordlight.attribution.options import one_of
from wordlight.attribution.question import Answer, Question, Size
from wordlight.backends.attention import AttentionMean, AttentionMeans, AttentionQuery
from wordlight.backends.backend import Evaluations
from wordlight.backends.trajectory import Trajectory

#: How the self-attention's heads are weighted in their mean: alike, or by the size of their
#: matrices' second eigenvalue (Erel et al. 2025, arXiv 2507.17657), which is large where attention
#: has groups of places that it rarely leaves.
HeadWeighting = Literal["equal", "second-eigenvalue"]
Matrix = npt.NDArray[np.float64]
#: Matrices up to this size are handed to LAPACK, larger ones to ARPACK.
_SMALL = 64


def check_head_weighting(weighting: str) -> HeadWeighting:
    """Raises ValueError for anything but ``"equal"`` and ``"second-eigenvalue"``."""
    return one_of("head_weighting", weighting, get_args(HeadWeighting))


class WithSelfAttention(ByStream):
    """Methods that read, step by step, how places attend to the text and to each other."""

    needs: ClassVar[frozenset[str]] = frozenset({"attention", "self_attention"})
    by_token: ClassVar[bool] = True

    def cost(self, size: Size) -> Evaluations:
        return Evaluations(forward=2 * size.steps)

    def _attribute(self, question: Question) -> Answer:
        trajectory = question.trajectory
        total = np.zeros((len(trajectory.tokens), *trajectory.grid))
        # Step by step, so that few steps' places x places are held at a time.
        crosses, withins = (
            self.backend.attention_by_step(trajectory, query, question.steps)
            for query in (AttentionQuery(), self._self_query())
        )
        for _, cross, within in zip(
            question.progress(question.steps), crosses, withins, strict=True
        ):
            total += self._at_step(cross, within, trajectory)
        maps = merge_words((total / len(question.steps)).clip(0), question.players)
        return Answer(xr.DataArray(maps, dims=("word", "y", "x")))

    @abstractmethod
    def _self_query(self) -> AttentionQuery:
        """Return the query for the self-attention."""

    @abstractmethod
    def _at_step(
        self, cross: AttentionMeans, within: AttentionMeans, trajectory: Trajectory
    ) -> Maps:
        """Return the tokens' maps ``(tokens, y, x)`` at one step, on the latent grid."""


def self_query(weighting: HeadWeighting, factors: Sequence[int] | None = None) -> AttentionQuery:
    """The self-attention that ``mean_of_heads`` is asked about."""
    keep = () if weighting == "equal" else ("layer", "head")
    return AttentionQuery(
        factors=None if factors is None else tuple(factors), keep=keep, kind="self"
    )


def by_grid(means: Sequence[AttentionMean]) -> dict[tuple[int, int], list[AttentionMean]]:
    """Means by the height and width of their grids, the finest first."""
    found: dict[tuple[int, int], list[AttentionMean]] = {}
    for mean in sorted(means, key=lambda one: -one.values.shape[0]):
        found.setdefault((mean.values.shape[1], mean.values.shape[2]), []).append(mean)
    return found


def mean_of_heads(means: Sequence[AttentionMean], weighting: HeadWeighting) -> Matrix:
    """The weighted mean of self-attention on one grid, ``(places, places)``: row by row how much a
    place attends to each other one, rows made to sum to one."""
    total, weights = np.zeros((len(means[0].values),) * 2), 0.0
    for mean in means:
        rows = mean.values.reshape(len(mean.values), -1).T.astype(np.float64)
        rows /= rows.sum(axis=1, keepdims=True)
        weight = float(mean.count) if weighting == "equal" else second_eigenvalue(rows)
        total += weight * rows
        weights += weight
    if not weights:
        # Of one place, or of heads that all are wholly even, which are all the same.
        return np.full_like(total, 1 / len(total))
    return total / weights


def second_eigenvalue(rows: Matrix) -> float:
    """The size of the second largest eigenvalue of a matrix whose rows sum to one, 0 to 1."""
    if len(rows) <= _SMALL:
        values = np.linalg.eigvals(rows)
    else:
        start = np.random.default_rng(0).random(len(rows))
        values = eigs(rows, k=2, v0=start, return_eigenvectors=False)
    return float(np.sort(np.abs(values))[-2]) if len(values) > 1 else 0.0
