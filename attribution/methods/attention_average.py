"""From averaged attention on several grids to maps of words on the latent grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wordlight.attribution.resize import resize
from wordlight.attribution.words import Word
from wordlight.backends.attention import AttentionMeans

Maps = npt.NDArray[np.float64]


def average_on_grid(
    means: AttentionMeans,
    grid: tuple[int, ...],
    axes: Sequence[str] = (),
    *,
    clamp_each: bool = False,
) -> tuple[Maps, dict[str, list[Any]]]:
    """Resize every map to ``grid`` and average, each layer x head x step map with equal weight.

    Args:
        means: of any grids, each with the number of maps it is the mean of.
        grid: height and width wanted, of a video behind the number of frames.
        axes: those of ``"step"``, ``"layer"``, ``"head"`` that stay apart.
        clamp_each: clamp each resized map at zero before it is averaged (bicubic resizing
            overshoots).

    Returns:
        Maps ``(*axes, tokens, [frame,] y, x)``, not clamped otherwise, and the labels along each
        axis.

    Raises:
        ValueError: combinations of the kept axes that don't exist, another number of frames.
    """
    labels = {axis: means.values_along(axis) for axis in axes}
    shape = tuple(len(labels[axis]) for axis in axes)
    total = np.zeros((*shape, means.tokens, *grid))
    counts = np.zeros((*shape, *(1,) * (1 + len(grid))))
    for mean in means.means:
        if mean.values.shape[1:-2] != grid[:-2]:
            raise ValueError(
                f"frames {mean.values.shape[1:-2]} of attention don't fit latents of {grid[:-2]}"
            )
        resized = resize(mean.values.astype(np.float64), (grid[-2], grid[-1]))
        if clamp_each:
            resized = resized.clip(0)
        place = tuple(labels[axis].index(getattr(mean, axis)) for axis in axes)
        total[place] += resized * mean.count
        counts[place] += mean.count
    if not counts.all():
        raise ValueError(f"not every combination of {', '.join(axes)} exists: keep fewer axes")
    return total / counts, labels


def merge_tokens(maps: Maps, positions: Iterable[Sequence[int]], n_sides: int = 2) -> Maps:
    """The mean over each word's tokens: ``(..., tokens, y, x)`` to ``(words, ..., y, x)``.

    ``n_sides`` is 3 where frames come before ``y``.
    """
    axis = -1 - n_sides
    return np.stack([np.take(maps, list(own), axis).mean(axis=axis) for own in positions])


def merge_words(maps: Maps, players: Iterable[Word], n_sides: int = 2) -> Maps:
    """``merge_tokens`` for players, whose tokens are the maps' tokens."""
    return merge_tokens(maps, (player.tokens for player in players), n_sides)
