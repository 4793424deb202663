"""Saliency: how steeply the push answers to a word's embedding, whatever the direction."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace

from wordlight.attribution.maps import Merge
from wordlight.attribution.options import whole
from wordlight.attribution.probes import root_mean_square_bias
from wordlight.attribution.question import Answer, Question, Size
from wordlight.attribution.step import Step, step_rng
from wordlight.attribution.stepwise import StepwiseAttributor
from wordlight.attribution.words import Word
from wordlight.backends.backend import Array, Evaluations


class Saliency(StepwiseAttributor):
    """‖∂f_yx/∂E_w‖ over all of a word's embedding (Simonyan et al. 2013, arXiv 1312.6034), by
    random forward-mode probes.

    For a Gaussian direction v on the word's tokens, ⟨∂f/∂E_w, v⟩ is Gaussian with the norm as its
    standard deviation, at every pixel at once. The root mean square of ``probes`` such draws is
    biased low and is divided by its expectation, so each pixel's estimate is unbiased; its
    relative standard error is ``relative_error``. Cost at a step: two forward passes and
    ``probes`` products a player.

    Args:
        backend: the model.
        steps: the denoising steps; all where None.
        step_weighting: ``"epsilon"`` or ``"equal"``.
        wrt: ``"embeddings"`` or ``"tokens"``.
        probes: random directions a word.
        seed: of the directions; timestep and word are mixed in.
    """

    name: ClassVar[str] = "saliency"
    question: ClassVar[str] = (
        "How steeply does the pixel answer to the word, whatever the direction?"
    )
    family: ClassVar[Literal["gradient"]] = "gradient"
    needs: ClassVar[frozenset[str]] = frozenset({"denoise", "denoise_jvp"})
    paper: ClassVar[str] = "Simonyan et al. 2013, arXiv 1312.6034"
    signed: ClassVar[bool] = False
    merge: ClassVar[Merge] = "root-sum-square"
    additive: ClassVar[bool] = False
    effort: ClassVar[str | None] = "probes"

    probes: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.probes = whole("probes", self.probes)
        self.seed = whole("seed", self.seed, 0)

    @property
    def multiplies_by_inputs(self) -> bool:
        """A slope, not a contribution."""
        return False

    @property
    def relative_error(self) -> float:
        """Standard error of a pixel's estimate at one step, as a share of its value."""
        return math.sqrt(1.0 / float(root_mean_square_bias(self.probes)) ** 2 - 1.0)

    def _cost_at_step(self, size: Size) -> Evaluations:
        return Evaluations(jvp=self.probes * size.players)

    def _attribute(self, question: Question) -> Answer:
        return replace(super()._attribute(question), probes=self.probes * len(question.steps))

    def _at_step(self, step: Step, players: tuple[Word, ...]) -> Array:
        xp = array_namespace(step.point)
        _, tokens, channels = step.point.shape
        # All words' probes together fill the denoiser's passes.
        probes = [self._directions(step, player, tokens, channels) for player in players]
        slopes = step.slopes(step.point, self.backend.asarray(np.concatenate(probes)))
        apart = xp.reshape(slopes, (len(players), self.probes, *slopes.shape[1:]))
        return xp.sqrt(xp.mean(apart * apart, axis=1)) / float(root_mean_square_bias(self.probes))

    def _directions(self, step: Step, player: Word, tokens: int, channels: int) -> npt.NDArray[Any]:
        rng = step_rng(self.seed, step.timestep, player.tokens[0], player.tokens[-1])
        directions = np.zeros((self.probes, tokens, channels))
        places = list(player.tokens)
        directions[:, places] = rng.standard_normal((self.probes, len(places), channels))
        return directions
