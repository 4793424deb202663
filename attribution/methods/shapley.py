"""Shapley values over words: what each word adds, averaged over the orders in which they come."""

from __future__ import annotations

from itertools import permutations
from math import factorial
from typing import ClassVar, Literal

import numpy as np
from array_api_compat import array_namespace

from wordlight.attribution.options import whole
from wordlight.attribution.question import Size
from wordlight.attribution.step import Step, player_masks, step_rng
from wordlight.attribution.stepwise import StepwiseAttributor
from wordlight.attribution.words import Word
from wordlight.backends.backend import Array, Evaluations


class Shapley(StepwiseAttributor):
    """Shapley value sampling over players, every pixel at once (Castro et al. 2009,
    doi 10.1016/j.cor.2008.04.004).

    Starting from the baseline, players' embeddings arrive one by one in a random order; a player
    is credited with what f changes when it arrives. Every order telescopes, so the maps sum to
    ‖g‖ whatever the number of orders, and a word without influence gets zero. Cost at a step: two
    forward passes and, for each order, one a player but the last.

    Args:
        backend: the model.
        steps: the denoising steps; all where None.
        step_weighting: ``"epsilon"`` or ``"equal"``.
        wrt: ``"embeddings"`` or ``"tokens"``.
        n_samples: the number of random orders; where there are no more orders than that, each is
            taken once and the values are exact.
        seed: of the orders; the timestep is mixed in.
    """

    name: ClassVar[str] = "shapley"
    question: ClassVar[str] = (
        "What does the word add, averaged over the orders in which words can arrive?"
    )
    family: ClassVar[Literal["perturbation"]] = "perturbation"
    paper: ClassVar[str] = "Castro et al. 2009, doi 10.1016/j.cor.2008.04.004"
    effort: ClassVar[str | None] = "n_samples"

    n_samples: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.n_samples = whole("n_samples", self.n_samples)
        self.seed = whole("seed", self.seed, 0)

    def _cost_at_step(self, size: Size) -> Evaluations:
        orders = self._count(size.players)
        return Evaluations(forward=orders * (size.players - 1))

    def _at_step(self, step: Step, players: tuple[Word, ...]) -> Array:
        xp = array_namespace(step.total)
        masks = player_masks(players, step.point.shape[1])
        orders = self._orders(len(players), step.timestep)
        credits = [0.0 * step.total for _ in players]
        for order in orders:
            arrived = np.cumsum(masks[list(order)], axis=0)[:-1]
            between = step.values_with(self.backend.asarray(arrived))
            values = [0.0 * step.total, *between, step.total]
            for place, player in enumerate(order):
                credits[player] = credits[player] + (values[place + 1] - values[place])
        return xp.stack(credits) / len(orders)

    def _orders(self, players: int, timestep: float) -> list[tuple[int, ...]]:
        if self._count(players) == _all_orders(players):
            return list(permutations(range(players)))
        rng = step_rng(self.seed, timestep)
        return [tuple(int(p) for p in rng.permutation(players)) for _ in range(self.n_samples)]

    def _count(self, players: int) -> int:
        every = _all_orders(players)
        return self.n_samples if every is None else min(every, self.n_samples)


def _all_orders(players: int) -> int | None:
    """Return the number of orders; None beyond 8 players, where there are more than anybody asks
    for."""
    return factorial(players) if players <= 8 else None
