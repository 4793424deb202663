"""Banzhaf values over words: what a word adds to a set of the others, all sets alike."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from wordlight.attribution.options import whole
from wordlight.attribution.question import Size
from wordlight.attribution.step import Step, player_masks, step_rng
from wordlight.attribution.stepwise import StepwiseAttributor
from wordlight.attribution.words import Word
from wordlight.backends.backend import Array, Evaluations


class Banzhaf(StepwiseAttributor):
    """The mean, over all sets of the other words, of what the target gains when a word joins
    (Banzhaf 1965; Wang and Jia 2023, arXiv 2205.15466).

    Sets are drawn with a fair coin for each player, each together with its complement, so that a
    player is in exactly one of the two; its value is the mean of f with it less the mean without.
    Unlike Shapley values they don't add up to ‖g‖. Cost at a step: two forward passes, and two a
    pair of sets.

    Args:
        backend: the model.
        steps: which denoising steps; all where None.
        step_weighting: ``"epsilon"`` or ``"equal"``.
        wrt: ``"embeddings"`` or ``"tokens"``.
        n_pairs: how many pairs of sets.
        seed: of the sets; the timestep is mixed in.
    """

    name: ClassVar[str] = "banzhaf"
    question: ClassVar[str] = "What does the word add to a set of words drawn at random?"
    family: ClassVar[Literal["perturbation"]] = "perturbation"
    paper: ClassVar[str] = "Wang and Jia 2023, arXiv 2205.15466"
    additive: ClassVar[bool] = False
    effort: ClassVar[str | None] = "n_pairs"

    n_pairs: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.n_pairs = whole("n_pairs", self.n_pairs)
        self.seed = whole("seed", self.seed, 0)

    def _cost_at_step(self, size: Size) -> Evaluations:
        return Evaluations(forward=2 * self.n_pairs)

    def _at_step(self, step: Step, players: tuple[Word, ...]) -> Array:
        drawn = step_rng(self.seed, step.timestep).integers(2, size=(self.n_pairs, len(players)))
        sets = np.concatenate([drawn, 1 - drawn]).astype(float)
        masks = player_masks(players, step.point.shape[1])
        values = step.values_with(self.backend.asarray(np.einsum("sp,ptd->std", sets, masks)))
        inside = 2 * sets - 1
        credits = np.einsum("sp,syx->pyx", inside, self.backend.to_numpy(values)) / self.n_pairs
        return self.backend.asarray(credits)
