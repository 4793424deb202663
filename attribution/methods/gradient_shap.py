"""GradientSHAP: the slope at random points of the path from baseline to noisy embeddings."""

from __future__ import annotations

from typing import ClassVar, Literal

from wordlight.attribution.options import number, whole
from wordlight.attribution.question import Size
from wordlight.attribution.step import Step, player_masks, step_rng
from wordlight.attribution.stepwise import StepwiseAttributor
from wordlight.attribution.words import Word
from wordlight.backends.backend import Array, Evaluations


class GradientShap(StepwiseAttributor):
    """E[⟨∂f/∂E_w at E° + α(E + noise - E°), (E + noise - E°)_w⟩] with α uniform on 0..1, as
    Captum's GradientShap with one baseline (Lundberg and Lee 2017, arXiv 1705.07874).

    Without noise it is integrated gradients by Monte Carlo. Cost at a step: two forward passes and
    ``n_samples`` forward-mode products a player.

    Args:
        backend: the model.
        steps: the denoising steps; all where None.
        step_weighting: ``"epsilon"`` or ``"equal"``.
        wrt: ``"embeddings"`` or ``"tokens"``.
        n_samples: the number of random points.
        stdevs: standard deviation of the noise on the embeddings.
        seed: of points and noise; the timestep is mixed in.
    """

    name: ClassVar[str] = "gradient-shap"
    question: ClassVar[str] = (
        "What share of the push is the word's, at random points of the way to the prompt?"
    )
    family: ClassVar[Literal["gradient"]] = "gradient"
    needs: ClassVar[frozenset[str]] = frozenset({"denoise", "denoise_jvp"})
    by_token: ClassVar[bool] = True
    paper: ClassVar[str] = "Lundberg and Lee 2017, arXiv 1705.07874"
    effort: ClassVar[str | None] = "n_samples"

    n_samples: int = 5
    stdevs: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.n_samples = whole("n_samples", self.n_samples)
        self.stdevs = number("stdevs", self.stdevs)
        self.seed = whole("seed", self.seed, 0)

    def _cost_at_step(self, size: Size) -> Evaluations:
        return Evaluations(jvp=self.n_samples * size.players)

    def _at_step(self, step: Step, players: tuple[Word, ...]) -> Array:
        rng = step_rng(self.seed, step.timestep)
        masks = self.backend.asarray(player_masks(players, step.point.shape[1]))
        total = 0.0
        for _ in range(self.n_samples):
            noise = self.backend.asarray(rng.standard_normal(step.point.shape) * self.stdevs)
            displacement = step.displacement + noise
            point = step.baseline + float(rng.random()) * displacement
            total = total + step.slopes(point, masks * displacement)
        return total / self.n_samples
