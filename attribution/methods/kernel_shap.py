"""KernelSHAP: Shapley values over words by one weighted regression for all pixels."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace, device

from wordlight.attribution.options import whole
from wordlight.attribution.question import Size
from wordlight.attribution.step import Step, player_masks, step_rng
from wordlight.attribution.stepwise import StepwiseAttributor
from wordlight.attribution.words import Word
from wordlight.backends.backend import Array, Evaluations

#: How often sets are drawn anew before it is said that they leave the answer open.
_DRAWS = 1000


class KernelShap(StepwiseAttributor):
    """Shapley values as the best additive model of f over random sets of words (Lundberg and Lee
    2017, arXiv 1705.07874).

    Sets are drawn with the Shapley kernel's probability, each together with its complement, and
    the regression keeps efficiency as a constraint: over all players the maps sum to ‖g‖ exactly.
    Cost at a step: two forward passes and ``n_samples``.

    Args:
        backend: the model.
        steps: the denoising steps; all where None.
        step_weighting: ``"epsilon"`` or ``"equal"``.
        wrt: ``"embeddings"`` or ``"tokens"``.
        n_samples: the number of sets of words; at least twice the number of players, or the
            regression has no single answer.
        seed: of the sets; the timestep is mixed in.
    """

    name: ClassVar[str] = "kernel-shap"
    question: ClassVar[str] = (
        "What does the word add over random sets of words, by one regression for all pixels?"
    )
    family: ClassVar[Literal["perturbation"]] = "perturbation"
    paper: ClassVar[str] = "Lundberg and Lee 2017, arXiv 1705.07874"
    effort: ClassVar[str | None] = "n_samples"

    n_samples: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.n_samples = whole("n_samples", self.n_samples)
        self.seed = whole("seed", self.seed, 0)

    def least_effort(self, size: Size) -> int:
        """Return the fewest sets that determine the answer."""
        return 2 * size.players

    def _cost_at_step(self, size: Size) -> Evaluations:
        return Evaluations(forward=self.n_samples)

    def _at_step(self, step: Step, players: tuple[Word, ...]) -> Array:
        if self.n_samples < 2 * len(players):
            raise ValueError(
                f"n_samples must be at least {2 * len(players)} for {len(players)} players, not "
                f"{self.n_samples}"
            )
        sets = self._sets(len(players), step.timestep)
        masks = player_masks(players, step.point.shape[1])
        kept = np.einsum("kp,ptd->ktd", sets.astype(masks.dtype), masks)
        values = step.values_with(self.backend.asarray(kept))
        norm = self.backend.to_numpy(step.total)
        solved = constrained_regression(sets, self.backend.to_numpy(values), norm)
        # Not the backend's own precision: rounded to half, the maps would no longer sum to ‖g‖.
        xp = array_namespace(step.total)
        return xp.asarray(solved, dtype=step.total.dtype, device=device(step.total))

    def _sets(self, players: int, timestep: float) -> npt.NDArray[np.bool_]:
        rng = step_rng(self.seed, timestep)
        # Few sets leave the answer open by bad luck; drawing others costs nothing.
        for _ in range(_DRAWS):
            sets = self._draw(rng, players)
            if _answerable(sets):
                break
        return sets

    def _draw(self, rng: np.random.Generator, players: int) -> npt.NDArray[np.bool_]:
        sizes = np.arange(1, players)
        chances = 1.0 / (sizes * (players - sizes))
        sets = np.zeros((self.n_samples, players), bool)
        for row in range(0, self.n_samples, 2):
            size = int(rng.choice(sizes, p=chances / chances.sum()))
            sets[row, rng.permutation(players)[:size]] = True
            if row + 1 < self.n_samples:
                sets[row + 1] = ~sets[row]
        return sets


def _answerable(sets: npt.NDArray[np.bool_]) -> bool:
    """Return whether the regression has a unique solution."""
    design = sets.astype(float)
    others = design[:, :-1] - design[:, -1:]
    return bool(np.linalg.matrix_rank(others) == others.shape[1])


def constrained_regression(
    sets: npt.NDArray[np.bool_], values: npt.NDArray[Any], total: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    """Players' maps φ that best explain ``values`` as sums over sets, with Σφ = ``total``.

    The last player is what the constraint leaves: the others are found by least squares.

    Args:
        sets: ``(samples, players)``.
        values: ``(samples, y, x)``, f of each set.
        total: ``(y, x)``, f of all players.

    Returns:
        ``(players, y, x)``.

    Raises:
        ValueError: sets that leave the answer open.
    """
    design = sets.astype(float)
    others = design[:, :-1] - design[:, -1:]
    goal = values - design[:, -1, None, None] * total
    if not _answerable(sets):
        raise ValueError("the sets of words leave the answer open: draw more (n_samples)")
    flat, *_ = np.linalg.lstsq(others, goal.reshape(len(goal), -1), rcond=None)
    found = flat.reshape(-1, *total.shape)
    return np.concatenate([found, total[None] - found.sum(0, keepdims=True)])
