"""Sensitivity: how far maps move when the embeddings are changed a little.

Yeh et al. 2019 (arXiv 1901.09392).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from wordlight.comparisons.metrics.metric import Metric

Explain = Callable[[npt.NDArray[np.floating[Any]]], npt.NDArray[np.floating[Any]]]


def nearby(
    embeddings: npt.NDArray[np.floating[Any]], *, radius: float, count: int, seed: int
) -> list[npt.NDArray[np.floating[Any]]]:
    """Embeddings with uniform noise of at most ``radius`` times their root mean square."""
    rng = np.random.default_rng(seed)
    most = radius * float(np.sqrt(np.square(embeddings, dtype=np.float64).mean()))
    return [
        (embeddings + rng.uniform(-most, most, embeddings.shape)).astype(embeddings.dtype)
        for _ in range(count)
    ]


def sensitivity(
    explain: Explain,
    embeddings: npt.NDArray[np.floating[Any]],
    others: Sequence[npt.NDArray[np.floating[Any]]],
) -> float | None:
    """The greatest ‖Φ(E') - Φ(E)‖ / ‖Φ(E)‖ over the others E', with Φ all maps of an image; 0 or
    more, None where Φ(E) is zero."""
    own = np.asarray(explain(embeddings), np.float64)
    size = float(np.linalg.norm(own))
    if not size:
        return None
    moved = (np.linalg.norm(np.asarray(explain(other), np.float64) - own) for other in others)
    return float(max(moved)) / size


class Sensitivity(Metric):
    """See ``sensitivity``; its mean is over images."""

    higher_is_better: ClassVar[bool] = False

    def update(
        self,
        sample: str,
        explain: Explain,
        embeddings: npt.NDArray[np.floating[Any]],
        others: Sequence[npt.NDArray[np.floating[Any]]],
    ) -> float | None:
        """One image's value, taken in where it is defined."""
        value = sensitivity(explain, embeddings, others)
        if value is not None:
            self.add(sample, value)
        return value
