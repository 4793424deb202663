"""Methods that look at the guidance target step by step and average over steps."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from wordlight.attribution.attributor import Steps, TextImageAttributor
from wordlight.attribution.guidance import (
    GuidanceStep,
    StepWeighting,
    average_steps,
    guidance_step,
)
from wordlight.attribution.maps import Merge
from wordlight.attribution.words import Word
from wordlight.backends.backend import Array, Backend
from wordlight.backends.trajectory import Trajectory


class StepwiseAttributor(TextImageAttributor):
    """An additive method: at each step one map a player, then the mean over the steps.

    Args:
        backend: the model.
        steps: which steps; all where None.
        step_weighting: ``"epsilon"`` takes steps as they come, ``"equal"`` divides each by the
            mean strength of the prompt's push there.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"denoise"})
    signed: ClassVar[bool] = True
    merge: ClassVar[Merge] = "sum"
    option_names: ClassVar[tuple[str, ...]] = ("step_weighting",)

    def __init__(
        self, backend: Backend, *, steps: Steps = None, step_weighting: StepWeighting = "epsilon"
    ) -> None:
        super().__init__(backend, steps=steps)
        if step_weighting not in get_args(StepWeighting):
            raise ValueError(f"step_weighting must be 'epsilon' or 'equal', not {step_weighting!r}")
        self.step_weighting: StepWeighting = step_weighting

    def _attribute(
        self,
        trajectory: Trajectory,
        players: tuple[Word, ...],
        steps: tuple[int, ...],
        baseline: npt.NDArray[Any],
    ) -> xr.DataArray:
        maps, norms = [], []
        with self.backend.no_gradients():
            for step in steps:
                prepared = guidance_step(self.backend, trajectory, step, baseline)
                maps.append(self.backend.to_numpy(self._at_step(prepared, players)))
                norms.append(self.backend.to_numpy(prepared.norm))
        averaged = average_steps(maps, norms, self.step_weighting)
        return xr.DataArray(np.asarray(averaged), dims=("word", "y", "x"))

    @abstractmethod
    def _at_step(self, step: GuidanceStep, players: tuple[Word, ...]) -> Array:
        """The players' maps at one step, ``(players, y, x)``."""
