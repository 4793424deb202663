"""The question that an attributor is asked about one image, and its answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import xarray as xr

from wordlight.attribution.targets import Guidance, PixelTarget
from wordlight.attribution.words import Word
from wordlight.backends.progress import tell
from wordlight.backends.progress_bar import ProgressBar
from wordlight.backends.trajectory import FloatArray, Trajectory


@dataclass(frozen=True)
class InputNoise:
    """Gaussian noise on the inputs, as NoiseTunnel adds it: ``stdev`` in the inputs' own units."""

    stdev: float
    seed: int


@dataclass(frozen=True)
class Size:
    """The size of a question about one image: all that a method's cost depends on.

    Attributes:
        players: the number of maps asked for.
        words: the number of players that are text, without special positions.
        steps: the number of steps looked at.
        drawing: denoiser rows of drawing the image once (a row a step, two with guidance).
        carried: denoiser rows at a step of words that are carried beside the prompt, for methods
            that do so.
    """

    players: int
    words: int
    steps: int
    drawing: int
    carried: int = 1

    @classmethod
    def of(
        cls, trajectory: Trajectory, players: Sequence[Word], steps: int | Sequence[int] | None
    ) -> Size:
        """The size of what an image's players and steps (as an attributor names them) make."""
        rows = 1 if trajectory.negative_embeddings is None else 2
        return cls(
            players=len(players),
            words=sum(player.is_text for player in players),
            steps=len(trajectory.at_steps(steps)),
            drawing=rows * trajectory.steps,
        )


@dataclass(frozen=True, eq=False)
class Question:
    """One image, cut up and ready to be explained.

    Attributes:
        trajectory: of the image.
        players: the owners of the context positions; they partition them.
        steps: numbers of the trajectory's steps to look at.
        baseline: E°, ``(tokens, channels)``.
        baseline_text: the prompt whose embeddings E° are.
        target: the scalar that is explained at each pixel.
        batch_size: largest batch of one denoiser pass.
        noise: the noise that is added to the inputs, if any.
        show_progress: whether to show how many steps are done.
    """

    trajectory: Trajectory
    players: tuple[Word, ...]
    steps: tuple[int, ...]
    baseline: FloatArray
    baseline_text: str = ""
    target: PixelTarget = field(default_factory=Guidance)
    batch_size: int = 16
    noise: InputNoise | None = None
    show_progress: bool = False

    def progress(self, items: Iterable[int], what: str = "steps") -> Iterator[int]:
        """Yield ``items``, with a progress bar where one was asked for, telling who listens."""
        waiting = list(items)
        bar = ProgressBar(waiting, unit=what, disable=not self.show_progress)
        for done, item in enumerate(bar):
            tell(what, done, len(waiting))
            yield item


@dataclass(frozen=True, eq=False)
class ConvergenceDelta:
    """The difference of the players' sum from the target, on the latent grid, before steps are
    averaged.

    Attributes:
        values: Σ over players - (f(E) - f(E°)), ``(step, [frame,] y, x)``.
        target: f(E) - f(E°), ``(step, y, x)``.
    """

    values: npt.NDArray[np.float64]
    target: npt.NDArray[np.float64]

    def __repr__(self) -> str:
        return (
            f"ConvergenceDelta(relative={np.array2string(self.relative, precision=3)}, "
            f"maximum={np.array2string(self.maximum, precision=3)})"
        )

    @property
    def relative(self) -> npt.NDArray[np.float64]:
        """Completeness error of each step: Σ_yx |values| / Σ_yx |target|."""
        wrong, whole = (_each_step(x).sum(1) for x in (self.values, self.target))
        shares: npt.NDArray[np.float64] = wrong / np.maximum(whole, 1e-300)
        return shares

    @property
    def error(self) -> float:
        """``relative``, averaged over the steps."""
        return float(self.relative.mean())

    @property
    def maximum(self) -> npt.NDArray[np.float64]:
        """The largest error of a pixel at each step, relative to the largest target."""
        wrong, whole = (_each_step(x).max(1) for x in (self.values, self.target))
        shares: npt.NDArray[np.float64] = wrong / np.maximum(whole, 1e-300)
        return shares


def _each_step(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Absolute values ``(step, places)``."""
    return np.abs(values).reshape(len(values), -1)


@dataclass(frozen=True, eq=False)
class Answer:
    """A method's maps ``(word, [step, layer, head,] y, x)`` on the latent grid, one a player, for
    additive methods how nearly they add up, and for norms that are estimated how many random probes
    are behind each."""

    maps: xr.DataArray
    delta: ConvergenceDelta | None = None
    probes: int = 0
