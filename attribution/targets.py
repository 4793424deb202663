"""Pixel targets: which number of each pixel a method explains."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace

from wordlight.attribution.options import one_of
from wordlight.attribution.resize import average_down
from wordlight.backends.backend import Array, Backend
from wordlight.backends.trajectory import Trajectory

Channel = Literal["red", "green", "blue"]

#: Where the push is weaker than this share of its maximum it has no direction.
_NO_DIRECTION = 1e-12


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions that a target is prepared from, at one step.

    Attributes:
        backend: the model.
        latents: ``(1, channels, height, width)``, as the denoiser saw them.
        trajectory, step: the run, and the step of it.
        full: ε(E), the prediction with the prompt, ``(1, channels, height, width)``.
        empty: ε(E°), the prediction at the baseline.
    """

    backend: Backend
    latents: Array
    trajectory: Trajectory
    step: int
    full: Array
    empty: Array


class StepTarget(ABC):
    """A target at one step: a function f of the prediction, zero at the baseline's.

    ``linear`` says that f is linear in the prediction, but for a constant, so that ``slopes`` are
    the same at every prediction.
    """

    linear: bool = False

    @abstractmethod
    def values(self, predictions: Array) -> Array:
        """f of each prediction: ``(batch, channels, y, x)`` to ``(batch, y, x)``."""

    @abstractmethod
    def slopes(self, prediction: Array, changes: Array) -> Array:
        """Return the derivative of f with respect to the prediction, at ``prediction`` ``(1,
        channels, y, x)`` along each of ``changes`` ``(batch, channels, y, x)``: ``(batch, y,
        x)``."""


class PixelTarget(ABC):
    """The number that a method explains at each pixel; pass one as ``attribute(..., target=...)``.

    A subclass sets ``name`` and writes ``prepare``.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    takes_videos: ClassVar[bool] = False

    @abstractmethod
    def prepare(self, predictions: Predictions) -> StepTarget:
        """The target at one step of a trajectory."""

    def settings(self) -> dict[str, Any]:
        """All that tells this target from another, as plain data."""
        return {"target": self.name}


class Guidance(PixelTarget):
    """The prompt's push at each pixel, in the direction in which it does push it (default).

    With g = ε(E) - ε(E°) and u = g/‖g‖ held fixed, f = ⟨ε - ε(E°), u⟩ over the channels; so
    f(E) = ‖g‖. Where ‖g‖ is below 1e-12 of its maximum, u is 0.
    """

    name: ClassVar[str] = "guidance"
    takes_videos: ClassVar[bool] = True

    def prepare(self, predictions: Predictions) -> StepTarget:
        xp = array_namespace(predictions.full)
        push = predictions.full - predictions.empty
        norm = xp.sqrt(xp.sum(push * push, axis=1, keepdims=True))
        pushed = norm > _NO_DIRECTION * xp.max(norm)
        direction = xp.where(pushed, push / xp.where(pushed, norm, xp.ones_like(norm)), 0 * push)
        return _Projection(predictions.empty, direction)


@dataclass(frozen=True, eq=False)
class _Projection(StepTarget):
    empty: Array
    direction: Array
    linear = True

    def values(self, predictions: Array) -> Array:
        return self.slopes(predictions, predictions - self.empty)

    def slopes(self, prediction: Array, changes: Array) -> Array:
        xp = array_namespace(changes)
        return xp.sum(changes * self.direction, axis=1)


class PredictionNorm(PixelTarget):
    """The norm of the prediction above the baseline's: f = ‖ε‖ - ‖ε(E°)‖ over the channels."""

    name: ClassVar[str] = "prediction-norm"
    takes_videos: ClassVar[bool] = True

    def prepare(self, predictions: Predictions) -> StepTarget:
        return _Norm(_norm(predictions.empty))


def _norm(predictions: Array) -> Array:
    xp = array_namespace(predictions)
    return xp.sqrt(xp.sum(predictions * predictions, axis=1))


@dataclass(frozen=True, eq=False)
class _Norm(StepTarget):
    empty: Array

    def values(self, predictions: Array) -> Array:
        return _norm(predictions) - self.empty

    def slopes(self, prediction: Array, changes: Array) -> Array:
        xp = array_namespace(changes)
        norm = _norm(prediction)
        safe = xp.where(norm > 0, norm, xp.ones_like(norm))
        return xp.sum(changes * prediction, axis=1) / safe


class Region(PixelTarget):
    """Another target inside a region of the image, zero outside: maps then tell what the words do
    there, and a map's sum is the word's score for the region.

    Args:
        mask: ``(height, width)``, boolean or weights from 0 to 1, at the image's size or any
            multiple of the latent grid's; averaged down to it.
        of: the target inside.

    Raises:
        ValueError: a mask of another shape, outside 0 to 1, or without a pixel; one that is no
            multiple of the latent grid (when asked).
    """

    name: ClassVar[str] = "region"

    def __init__(self, mask: npt.ArrayLike, of: PixelTarget | None = None) -> None:
        self.mask = np.asarray(mask, float)
        if self.mask.ndim != 2 or not self.mask.size:
            raise ValueError(f"a region's mask must be (height, width), not {self.mask.shape}")
        if not (self.mask.min() >= 0 and 0 < self.mask.max() <= 1):
            raise ValueError("a region's mask must hold 0 to 1, and at least one pixel above 0")
        self.of = of or Guidance()
        self.needs = self.of.needs  # type: ignore[misc]

    def on_grid(self, grid: tuple[int, int]) -> npt.NDArray[np.floating[Any]]:
        """The mask averaged down to a latent grid; raises ValueError where it is no multiple."""
        if self.mask.shape[0] % grid[0] or self.mask.shape[1] % grid[1]:
            raise ValueError(
                f"a region's mask must be of the latent grid's size {grid} or a multiple of it, "
                f"such as the image's, not {self.mask.shape}"
            )
        return average_down(self.mask, grid)

    def prepare(self, predictions: Predictions) -> StepTarget:
        grid = (int(predictions.latents.shape[2]), int(predictions.latents.shape[3]))
        weights = predictions.backend.asarray(self.on_grid(grid))
        return _Weighted(self.of.prepare(predictions), weights)

    def settings(self) -> dict[str, Any]:
        digest = hashlib.sha256(self.mask.tobytes()).hexdigest()[:16]
        return {"target": self.name, "of": self.of.settings(), "mask": [*self.mask.shape, digest]}


@dataclass(frozen=True, eq=False)
class _Weighted(StepTarget):
    inside: StepTarget
    weights: Array

    @property
    def linear(self) -> bool:  # type: ignore[override]
        return self.inside.linear

    def values(self, predictions: Array) -> Array:
        return self.inside.values(predictions) * self.weights

    def slopes(self, prediction: Array, changes: Array) -> Array:
        return self.inside.slopes(prediction, changes) * self.weights


class DecodedChannel(PixelTarget):
    """A colour channel of the image that the step is heading for: f = p(ε) - p(ε(E°)), with p the
    channel of the decoded estimate (x - σε)/α of the clean latents, from 0 to 1, averaged down to
    the latent grid.

    Args:
        channel: ``"red"``, ``"green"`` or ``"blue"``.
    """

    name: ClassVar[str] = "decoded-channel"
    needs: ClassVar[frozenset[str]] = frozenset({"decode"})

    def __init__(self, channel: Channel) -> None:
        self.channel: Channel = one_of("channel", channel, get_args(Channel))

    def prepare(self, predictions: Predictions) -> StepTarget:
        number = get_args(Channel).index(self.channel)
        backend = predictions.backend
        alpha, sigma = backend.noise_level_at(predictions.trajectory, predictions.step)
        empty = backend.decode((predictions.latents - sigma * predictions.empty) / alpha)
        grid = (int(predictions.latents.shape[2]), int(predictions.latents.shape[3]))
        return _Decoded(backend, predictions.latents, alpha, sigma, number, empty[:, number], grid)

    def settings(self) -> dict[str, Any]:
        return {"target": self.name, "channel": self.channel}


@dataclass(frozen=True, eq=False)
class _Decoded(StepTarget):
    backend: Backend
    latents: Array
    alpha: float
    sigma: float
    channel: int
    empty: Array
    grid: tuple[int, int]

    def _down(self, pixels: Array) -> Array:
        xp = array_namespace(pixels)
        (batch, height, width), (y, x) = pixels.shape, self.grid
        return xp.mean(xp.reshape(pixels, (batch, y, height // y, x, width // x)), axis=(2, 4))

    def values(self, predictions: Array) -> Array:
        clean = (self.latents - self.sigma * predictions) / self.alpha
        return self._down(self.backend.decode(clean)[:, self.channel] - self.empty)

    def slopes(self, prediction: Array, changes: Array) -> Array:
        clean = (self.latents - self.sigma * prediction) / self.alpha
        _, slopes = self.backend.decode_jvp(clean, -self.sigma / self.alpha * changes)
        return self._down(slopes[:, self.channel])
