"""Sensitivity: how far maps move when the embeddings are changed a little.

Yeh et al. 2019 (arXiv 1901.09392).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wordlight.comparisons.metrics.judged import JudgedImage, asked_again
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


#: Primitives of methods that read the prompt's text, or draw anew, whatever the embeddings are.
_READS_TEXT = frozenset({"encode", "encode_from", "sample"})


def sensitivity_of_image(
    image: JudgedImage, *, perturbations: int = 2, radius: float = 0.02
) -> float | None:
    """``sensitivity`` of an image's maps; None of maps from files, of shuffled ones, which move as
    the method's own do, and of methods that read the text.

    Args:
        image: with all of its maps, and their method.
        perturbations: the number of perturbations.
        radius: the largest perturbation, in root mean squares of the embeddings, above 0.
    """
    if image.shuffled or image.method is None or image.method.needs & _READS_TEXT:
        return None
    own = image.item.trajectory.embeddings

    def explain(embeddings: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
        if embeddings is own:
            return image.maps.data.values
        return asked_again(image, embeddings)

    others = nearby(own, radius=radius, count=perturbations, seed=image.seed)
    return sensitivity(explain, own, others)


METRICS = (
    Metric(
        name="sensitivity",
        score=sensitivity_of_image,
        over="image",
        higher_is_better=False,
        needs=frozenset({"method"}),
        constant=0.0,
        most=math.inf,
        groups=("faithfulness",),
        table="sensitivity",
        ranked=True,
        options={"perturbations": 2, "radius": 0.02},
        notes=("sensitivity says nothing by itself: maps that never change have 0",),
    ),
)
