"""Methods that look at the target step by step and average over steps."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from wordlight.attribution.attributor import TextImageAttributor
from wordlight.attribution.maps import Merge
from wordlight.attribution.options import one_of
from wordlight.attribution.question import Answer, ConvergenceDelta, Question, Size
from wordlight.attribution.step import Inputs, InputSpace, Step, check_space, prepare_step
from wordlight.attribution.words import Word
from wordlight.backends.backend import Array, Evaluations

StepWeighting = Literal["epsilon", "equal"]


class StepwiseAttributor(TextImageAttributor):
    """A method that makes one map a player at each step; the answer is their mean over the steps.

    A subclass writes ``_at_step`` and ``_cost_at_step``. It is additive unless it says otherwise
    (``additive``): its maps are shares of the target, and what they fail to share out is its
    convergence delta.

    Args:
        backend: the model.
        steps: the steps; all where None.
        step_weighting: ``"epsilon"`` takes steps as they come, ``"equal"`` divides each by the
            mean size of the target there.
        wrt: the inputs that are varied: ``"embeddings"``, the text encoder's output, or
            ``"tokens"``, its input embeddings, so that what a word does to the others' embeddings
            counts as its own.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"denoise"})
    signed: ClassVar[bool] = True
    merge: ClassVar[Merge] = "sum"
    takes_targets: ClassVar[bool] = True
    takes_videos: ClassVar[bool] = True
    additive: ClassVar[bool] = True

    step_weighting: StepWeighting = "epsilon"
    wrt: InputSpace = "embeddings"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weighting(self.step_weighting)
        check_space(self.wrt)
        if self.wrt == "tokens":
            self.backend.require(frozenset({"encode_from"}), f"{self.name} with wrt='tokens'")
            self.needs = self.needs | {"encode_from"}  # type: ignore[misc]

    def has_convergence_delta(self) -> bool:
        """Return whether the maps are shares of the target."""
        return self.additive

    def cost(self, size: Size) -> Evaluations:
        """Return two forward passes a step, and the method's own."""
        own = self._cost_at_step(size)
        return Evaluations(
            forward=size.steps * (2 + own.forward),
            jvp=size.steps * own.jvp,
            vjp=size.steps * own.vjp,
        )

    def _cost_at_step(self, size: Size) -> Evaluations:
        """Return the cost of ``_at_step``."""
        raise NotImplementedError(
            f"{self.name} doesn't say what it costs: it must write _cost_at_step()"
        )

    def _attribute(self, question: Question) -> Answer:
        maps, totals = [], []
        with self.backend.no_gradients():
            inputs = Inputs.of(self.backend, question, self.wrt)
            for number in question.progress(question.steps):
                step = prepare_step(question, inputs, number)
                maps.append(self.backend.to_numpy(self._at_step(step, question.players)))
                totals.append(self.backend.to_numpy(step.total))
        delta = None
        if self.additive:
            target = np.stack(totals).astype(np.float64)
            shared = np.stack([m.sum(0, dtype=np.float64) for m in maps])
            delta = ConvergenceDelta(shared - target, target)
        averaged = average_steps(maps, totals, self.step_weighting)
        dims = ("word", *question.trajectory.place_axes)
        return Answer(xr.DataArray(averaged, dims=dims), delta)

    @abstractmethod
    def _at_step(self, step: Step, players: tuple[Word, ...]) -> Array:
        """The players' maps at one step, ``(players, y, x)``."""


def check_weighting(step_weighting: str) -> StepWeighting:
    """Raises ValueError for anything but ``"epsilon"`` and ``"equal"``."""
    return one_of("step_weighting", step_weighting, get_args(StepWeighting))


def average_steps(
    maps: list[npt.NDArray[Any]], totals: list[npt.NDArray[Any]], weighting: StepWeighting
) -> npt.NDArray[Any]:
    """The mean over steps; ``"equal"`` divides each step by the mean size of its target first."""
    if weighting == "equal":
        maps = [m / max(float(np.abs(t).mean()), 1e-30) for m, t in zip(maps, totals, strict=True)]
    averaged: npt.NDArray[Any] = np.mean(np.stack(maps), axis=0)
    return averaged
