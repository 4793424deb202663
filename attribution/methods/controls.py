"""Controls: what a method must beat before its maps say anything."""

from __future__ import annotations

import zlib
from dataclasses import field
from typing import ClassVar, Literal

import numpy as np
import xarray as xr
from array_api_compat import array_namespace

from wordlight.attribution.attributor import Steps, TextImageAttributor
from wordlight.attribution.maps import Merge
from wordlight.attribution.options import number, whole
from wordlight.attribution.question import Answer, Question, Size
from wordlight.attribution.step import Step
from wordlight.attribution.stepwise import StepwiseAttributor
from wordlight.attribution.words import Word
from wordlight.backends.backend import Array, Evaluations


class _Control(TextImageAttributor):
    family: ClassVar[Literal["control"]] = "control"

    #: A control looks at no step of the run.
    steps: Steps = field(default=1, init=False)

    def cost(self, size: Size) -> Evaluations:
        """Return no evaluations: the model isn't asked."""
        return Evaluations()


class Uniform(_Control):
    """Every pixel alike, for every word."""

    name: ClassVar[str] = "uniform"
    question: ClassVar[str] = "How well does a map do that is the same everywhere?"
    by_token: ClassVar[bool] = True

    def _attribute(self, question: Question) -> Answer:
        shape = (len(question.players), *question.trajectory.grid)
        return Answer(xr.DataArray(np.ones(shape), dims=("word", "y", "x")))


class Center(_Control):
    """A Gaussian in the middle of the image, for every word.

    Args:
        backend: the model.
        width: standard deviation, as a share of the image's height and width.
    """

    name: ClassVar[str] = "center"
    question: ClassVar[str] = "How well does a blob in the middle do?"
    by_token: ClassVar[bool] = True

    width: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        self.width = number("width", self.width)
        if not self.width:
            raise ValueError("width must be above 0, not 0")

    def _attribute(self, question: Question) -> Answer:
        height, width = question.trajectory.grid
        y = ((np.arange(height) + 0.5) / height - 0.5) / self.width
        x = ((np.arange(width) + 0.5) / width - 0.5) / self.width
        bump = np.exp(-0.5 * (y[:, None] ** 2 + x[None, :] ** 2))
        maps = np.broadcast_to(bump, (len(question.players), height, width)).copy()
        return Answer(xr.DataArray(maps, dims=("word", "y", "x")))


class Random(_Control):
    """Independent uniform noise at every pixel, different for every word and image.

    Args:
        backend: the model.
        seed: of the noise; the prompt, the image's own seed and the word are mixed in.
    """

    name: ClassVar[str] = "random"
    question: ClassVar[str] = "How well does noise do?"

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.seed = whole("seed", self.seed, 0)

    def _attribute(self, question: Question) -> Answer:
        trajectory = question.trajectory
        mixed = [self.seed, zlib.crc32(trajectory.prompt.encode()), trajectory.seed or 0]
        maps = [
            np.random.default_rng([*mixed, *player.tokens]).random(trajectory.grid)
            for player in question.players
        ]
        return Answer(xr.DataArray(np.stack(maps), dims=("word", "y", "x")))


class GuidanceNorm(StepwiseAttributor):
    """‖ε(E) - ε(E°)‖, the strength of the whole prompt's push: the same map for every word.

    With another ``target`` than ``Guidance()``, how far the whole prompt moves that, |f(E)|.
    """

    name: ClassVar[str] = "guidance-norm"
    question: ClassVar[str] = "Where does the whole prompt push, whatever the word?"
    family: ClassVar[Literal["control"]] = "control"
    signed: ClassVar[bool] = False
    merge: ClassVar[Merge] = "mean"
    additive: ClassVar[bool] = False
    by_token: ClassVar[bool] = True

    def _cost_at_step(self, size: Size) -> Evaluations:
        return Evaluations()

    def _at_step(self, step: Step, players: tuple[Word, ...]) -> Array:
        xp = array_namespace(step.total)
        return xp.broadcast_to(xp.abs(step.total), (len(players), *step.total.shape))


class ShuffledWord(_Control):
    """The same method's map of a word of another object whose mask is disjoint.

    Which word that is takes masks, so this control exists in comparisons only, as a row beside
    each method; constructed by itself, it raises ValueError.
    """

    name: ClassVar[str] = "shuffled-word"
    question: ClassVar[str] = "Where does the same method see a word of another object?"

    def __post_init__(self) -> None:
        raise ValueError(
            "shuffled-word takes another method's maps and the objects' masks: "
            "use it in a comparison (wordlight compare)"
        )

    def _attribute(self, question: Question) -> Answer:
        raise NotImplementedError
