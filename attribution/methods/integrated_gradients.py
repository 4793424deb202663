"""IntegratedGradients: a word's slope, averaged on the way from no prompt to the prompt."""

from __future__ import annotations

from typing import ClassVar, Literal

from wordlight.attribution.methods.path_rules import PathRule, least_nodes, path_nodes
from wordlight.attribution.question import Size
from wordlight.attribution.step import Step, player_masks
from wordlight.attribution.stepwise import StepwiseAttributor
from wordlight.attribution.words import Word
from wordlight.backends.backend import Array, Evaluations


class IntegratedGradients(StepwiseAttributor):
    """InputXGradient's slope averaged over the straight path from E° to E
    (Sundararajan et al. 2017, arXiv 1703.01365).

    Complete: over all players the maps sum to ‖g‖, how far the whole prompt pushes each pixel, up
    to the error of the integration. Cost at a step: two forward passes, and ``n_steps``
    forward-mode products a player.

    Args:
        backend: the model.
        steps: the denoising steps; all where None.
        step_weighting: ``"epsilon"`` or ``"equal"``.
        wrt: ``"embeddings"`` or ``"tokens"``.
        n_steps: the number of points of the path.
        method: the rule of integration, by Captum's names; the trapezoid's weights are its own
            times n_steps / (n_steps - 1), so that they sum to 1.
    """

    name: ClassVar[str] = "integrated-gradients"
    question: ClassVar[str] = "What share of the push at this pixel is the word's?"
    family: ClassVar[Literal["gradient"]] = "gradient"
    needs: ClassVar[frozenset[str]] = frozenset({"denoise", "denoise_jvp"})
    by_token: ClassVar[bool] = True
    paper: ClassVar[str] = "Sundararajan et al. 2017, arXiv 1703.01365"
    effort: ClassVar[str | None] = "n_steps"

    n_steps: int = 8
    method: PathRule = "gausslegendre"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._nodes = path_nodes(self.method, self.n_steps)
        self.n_steps = int(self.n_steps)

    def least_effort(self, size: Size) -> int:
        """Return the fewest points that the rule of integration takes."""
        return least_nodes(self.method)

    def _cost_at_step(self, size: Size) -> Evaluations:
        return Evaluations(jvp=self.n_steps * size.players)

    def _at_step(self, step: Step, players: tuple[Word, ...]) -> Array:
        masks = self.backend.asarray(player_masks(players, step.point.shape[1]))
        total = 0.0
        for place, weight in zip(*self._nodes, strict=True):
            point = step.baseline + float(place) * step.displacement
            slopes = step.slopes(point, masks * step.displacement)
            total = total + float(weight) * slopes
        return total
