"""Infidelity: do the maps of some words add up to what changes when these are taken out?

Yeh et al. 2019 (arXiv 1901.09392), at each pixel, with sets of words for perturbations.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.metrics.word_game import Maps, Sets, WordGame


def random_sets(words: int, count: int, seed: int) -> Sets:
    """Sets of words that are taken out, ``(count, words)``: each word with chance 1/2, at least
    one."""
    rng = np.random.default_rng(seed)
    sets = rng.random((count, words)) < 0.5
    # An empty set would ask nothing: it gets one word.
    empty = np.flatnonzero(~sets.any(axis=1))
    sets[empty, rng.integers(words, size=len(empty))] = True
    return sets


def best_scale(explained: Maps, changes: Maps) -> float:
    """The factor of ``explained``, 0 or more, that brings it nearest to ``changes``."""
    size = float((explained * explained).sum())
    return max(0.0, float((explained * changes).sum()) / size) if size else 0.0


def infidelity(maps: Maps, sets: Sets, changes: Maps, *, scaled: bool) -> float | None:
    """The squared difference Σ_{w∈S} m_w - (f(E) - f(E∖S)), summed over sets and pixels, as a share
    of what maps of zeros have.

    0 is perfect, 1 as bad as saying nothing. At their best scale maps have at most 1.

    Args:
        maps: m, ``(words, y, x)``.
        sets: S, ``(sets, words)``.
        changes: f(E) - f(E∖S), ``(sets, y, x)``.
        scaled: multiply the maps by ``best_scale``, one factor for the image.

    Returns:
        None where nothing changes.
    """
    explained = np.einsum("sw,wyx->syx", sets.astype(np.float64), maps)
    if scaled:
        explained = best_scale(explained, changes) * explained
    size = float(np.square(changes).sum())
    return float(np.square(explained - changes).sum()) / size if size else None


class Infidelity(Metric):
    """See ``infidelity``.

    Args:
        name: in results and tables.
        scale: ``None`` takes signed maps as they are, in the target's units, and others at their
            best scale; True scales all, so that they can be compared.
    """

    higher_is_better: ClassVar[bool] = False

    def __init__(self, name: str, *, scale: bool | None = None) -> None:
        super().__init__(name)
        self.scale = scale

    def update(
        self, sample: str, game: WordGame, maps: Maps, sets: Sets, *, signed: bool
    ) -> float | None:
        """One image's infidelity, taken in where it is defined.

        Args:
            sample: the image.
            game: of the image.
            maps: of the game's words, ``(words, y, x)``.
            sets: which words are taken out together, ``(sets, words)``.
            signed: whether the maps are in the target's units.
        """
        scaled = (not signed) if self.scale is None else self.scale
        value = infidelity(maps, sets, game.full - game.without(sets), scaled=scaled)
        if value is not None:
            self.add(sample, value)
        return value
