"""Infidelity: do the maps of some words add up to what changes when these are taken out?

Yeh et al. 2019 (arXiv 1901.09392), at each pixel, with sets of words for perturbations.
"""

from __future__ import annotations

import math

import numpy as np

from wordlight.comparisons.metrics.judged import JudgedImage
from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.metrics.word_game import TARGET_NOTE, Maps, Sets


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


def infidelity_of_image(image: JudgedImage, *, sets: int = 16) -> float | None:
    """``infidelity`` over random sets of words, with signed maps as they are, in the target's
    units, and others at their best scale; None where some words have no map of their own."""
    return _of_image(image, sets, scaled=not image.signed)


def infidelity_at_best_scale(image: JudgedImage, *, sets: int = 16) -> float | None:
    """``infidelity_of_image`` with all maps at their best scale, so that they can be compared."""
    return _of_image(image, sets, scaled=True)


def _of_image(image: JudgedImage, sets: int, *, scaled: bool) -> float | None:
    if image.values is None:
        return None
    game = image.model.game
    removed = random_sets(len(game.words), sets, image.seed)
    changes = game.full - game.without(removed)
    return infidelity(image.values, removed, changes, scaled=scaled)


METRICS = tuple(
    Metric(
        name=name,
        score=score,
        over="image",
        higher_is_better=False,
        needs=frozenset({"word-game"}),
        # Without a scale a constant map may be off by anything.
        most=most,
        groups=("faithfulness", "infidelity"),
        table="infidelity",
        ranked=True,
        options={"sets": 16},
        notes=(TARGET_NOTE,),
    )
    for name, score, most in (
        ("infidelity", infidelity_of_image, math.inf),
        ("infidelity@best-scale", infidelity_at_best_scale, 1.0),
    )
)
