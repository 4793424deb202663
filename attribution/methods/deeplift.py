"""DeepLift: a word's share of the push, carried through the network by the rescale rule."""

from __future__ import annotations

from typing import ClassVar, Literal

from wordlight.attribution.question import Size
from wordlight.attribution.step import Step, player_masks
from wordlight.attribution.stepwise import StepwiseAttributor
from wordlight.attribution.words import Word
from wordlight.backends.backend import Array, Evaluations


class DeepLift(StepwiseAttributor):
    """A word's displacement E_w - E°_w, carried through the denoiser beside its passes at E and E°
    by the rescale rule of DeepLIFT (Shrikumar et al. 2017, arXiv 1704.02685).

    Linear operations take the part as it is; an elementwise function multiplies it by Δf/Δx, the
    slope between the two passes; a product a·b, attention's too, gives ½(a + a°)·Δb + ½(b + b°)·Δa;
    softmax and norms are written out in such. What the paper does in a backward pass for one output
    is done forward here, for all pixels at once. Of the paper comes the rule for elementwise
    functions; that for products is the Shapley value of the two factors, and our choice.

    Complete: over all players the maps sum to ‖g‖, how far the whole prompt pushes each pixel, up
    to rounding. Cost at a step: two forward passes, and one forward-mode product a player.

    Args:
        backend: the model.
        steps: the denoising steps; all where None.
        step_weighting: ``"epsilon"`` or ``"equal"``.
        wrt: ``"embeddings"``, or ``"tokens"``: parts are then carried through the text encoder too,
            by the same rule.

    Raises:
        ValueError: a target that isn't linear in the prediction, or a model with an operation that
            there is no rule for (when asked).
    """

    name: ClassVar[str] = "deeplift"
    question: ClassVar[str] = (
        "What share of the push is the word's, by the slopes between no prompt and the "
        "prompt at every layer?"
    )
    family: ClassVar[Literal["gradient"]] = "gradient"
    needs: ClassVar[frozenset[str]] = frozenset({"denoise", "denoise_parts"})
    by_token: ClassVar[bool] = True
    paper: ClassVar[str] = "Shrikumar et al. 2017, arXiv 1704.02685"

    def _cost_at_step(self, size: Size) -> Evaluations:
        return Evaluations(jvp=size.players)

    def _at_step(self, step: Step, players: tuple[Word, ...]) -> Array:
        masks = self.backend.asarray(player_masks(players, step.point.shape[1]))
        return step.shares(masks * step.displacement)
