"""InputXGradient: how the push changes to first order when a word's embedding arrives."""

from __future__ import annotations

from typing import ClassVar, Literal

from wordlight.attribution.question import Size
from wordlight.attribution.step import Step, player_masks
from wordlight.attribution.stepwise import StepwiseAttributor
from wordlight.attribution.words import Word
from wordlight.backends.backend import Array, Evaluations


class InputXGradient(StepwiseAttributor):
    """⟨∂f_yx/∂E_w, E_w - E°_w⟩: the target's slope along a word's displacement from the baseline
    (Shrikumar et al. 2016, arXiv 1605.01713).

    One forward-mode product a player gives every pixel at once. Cost at a step: two forward
    passes and one product a player.
    """

    name: ClassVar[str] = "input-x-gradient"
    question: ClassVar[str] = "To first order, what does the word's embedding add to the push?"
    family: ClassVar[Literal["gradient"]] = "gradient"
    needs: ClassVar[frozenset[str]] = frozenset({"denoise", "denoise_jvp"})
    by_token: ClassVar[bool] = True
    paper: ClassVar[str] = "Shrikumar et al. 2016, arXiv 1605.01713"

    def _cost_at_step(self, size: Size) -> Evaluations:
        return Evaluations(jvp=size.players)

    def _at_step(self, step: Step, players: tuple[Word, ...]) -> Array:
        masks = self.backend.asarray(player_masks(players, step.point.shape[1]))
        return step.slopes(step.point, masks * step.displacement)
