"""Occlusion: what the push loses when a word's embedding is taken away."""

from __future__ import annotations

from typing import ClassVar, Literal

from wordlight.attribution.question import Size
from wordlight.attribution.step import Step, player_masks
from wordlight.attribution.stepwise import StepwiseAttributor
from wordlight.attribution.words import Word
from wordlight.backends.backend import Array, Evaluations


class Occlusion(StepwiseAttributor):
    """f_yx(E) - f_yx(E with E_w := E°_w): leave one word out, at the same latents
    (Zeiler and Fergus 2014, arXiv 1311.2901).

    The embeddings of the word's tokens are replaced; the other words' embeddings, which the
    encoder made knowing the word, stay. Cost at a step: two forward passes and one a player.
    """

    name: ClassVar[str] = "occlusion"
    question: ClassVar[str] = "What does the push lose when the word's embedding is taken away?"
    family: ClassVar[Literal["perturbation"]] = "perturbation"
    paper: ClassVar[str] = "Zeiler and Fergus 2014, arXiv 1311.2901"

    def _cost_at_step(self, size: Size) -> Evaluations:
        return Evaluations(forward=size.players)

    def _at_step(self, step: Step, players: tuple[Word, ...]) -> Array:
        masks = self.backend.asarray(player_masks(players, step.point.shape[1]))
        return step.total - step.values_with(1.0 - masks)
