"""The pixel target ``guidance``: how far the prompt pushes each pixel the way it does push it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace

from wordlight.attribution.words import Word
from wordlight.backends.backend import Array, Backend, Conditioning
from wordlight.backends.trajectory import FloatArray, Trajectory

StepWeighting = Literal["epsilon", "equal"]

#: Where the push is weaker than this share of its maximum it has no direction.
_NO_DIRECTION = 1e-12
#: Rows of one denoiser pass; more are cut into several.
_ROWS = 16


@dataclass(frozen=True)
class GuidanceStep:
    """One step of a trajectory, ready to be asked how the prompt pushes.

    With g = ε(E) - ε(E°), u = g/‖g‖ held fixed: the target f(E) is ⟨ε(E) - ε(E°), u⟩ over the
    channels, so f(E) = ‖g‖ and f(E°) = 0 at every pixel.

    Attributes:
        latents: ``(1, channels, height, width)``.
        embeddings, baseline: E and E°, ``(1, tokens, channels)``.
        empty_prediction: ε(E°), ``(1, channels, height, width)``.
        direction: u, ``(1, channels, height, width)``.
        norm: ‖g‖, ``(height, width)``.
    """

    backend: Backend
    latents: Array
    timestep: float
    embeddings: Array
    baseline: Array
    added: dict[str, Array]
    empty_prediction: Array
    direction: Array
    norm: Array

    def conditioning(self, embeddings: Array) -> Conditioning:
        """Other embeddings ``(rows, tokens, channels)`` with the step's further conditioning."""
        xp = array_namespace(embeddings)
        rows = embeddings.shape[0]
        added = {
            name: xp.broadcast_to(value, (rows, *value.shape[1:]))
            for name, value in self.added.items()
        }
        return Conditioning(embeddings, added)

    def predict(self, embeddings: Array) -> Array:
        """ε for each row of embeddings."""
        xp = array_namespace(embeddings)
        rows = (embeddings.shape[0], *self.latents.shape[1:])
        latents = xp.broadcast_to(self.latents, rows)
        return wide(self.backend.denoise(latents, self.timestep, self.conditioning(embeddings)))

    def values_with(self, kept: Array) -> Array:
        """f where only some positions have the prompt's embeddings, the others the baseline's.

        ``kept`` is ``(rows, tokens, 1)``, 1 or 0; gives ``(rows, y, x)``.
        """
        xp = array_namespace(kept)
        points = self.baseline + kept * (self.embeddings - self.baseline)
        values = [
            self.project(self.predict(points[start : start + _ROWS]) - self.empty_prediction)
            for start in range(0, kept.shape[0], _ROWS)
        ]
        return xp.concat(values, axis=0)

    def project(self, change: Array) -> Array:
        """⟨change, u⟩ over the channels: ``(rows, channels, y, x)`` to ``(rows, y, x)``."""
        xp = array_namespace(change)
        return xp.sum(wide(change) * self.direction, axis=1)


def wide(array: Array) -> Array:
    """At least float32: squares of half-precision predictions underflow."""
    xp = array_namespace(array)
    return xp.astype(array, xp.float32) if array.dtype.itemsize < 4 else array


def guidance_step(
    backend: Backend, trajectory: Trajectory, step: int, baseline: FloatArray
) -> GuidanceStep:
    """Prepare one step: costs two forward passes."""
    latents = backend.asarray(trajectory.latents[step][None])
    timestep = float(trajectory.timesteps[step])
    both = backend.asarray(np.stack([trajectory.embeddings, baseline]))
    added = {name: backend.asarray(value[None]) for name, value in trajectory.added.items()}
    xp = array_namespace(both)
    rows = {name: xp.concat([value, value], axis=0) for name, value in added.items()}
    pair = wide(
        backend.denoise(xp.concat([latents, latents], axis=0), timestep, Conditioning(both, rows))
    )
    push = pair[:1] - pair[1:]
    norm = xp.sqrt(xp.sum(push * push, axis=1, keepdims=True))
    pushed = norm > _NO_DIRECTION * xp.max(norm)
    direction = xp.where(pushed, push / xp.where(pushed, norm, xp.ones_like(norm)), 0 * push)
    return GuidanceStep(
        backend,
        latents,
        timestep,
        both[:1],
        both[1:],
        added,
        pair[1:],
        direction,
        norm[0, 0],
    )


def step_rng(seed: int, timestep: float, *more: int) -> np.random.Generator:
    """The random numbers of one step of a method: other ones at each timestep, the same again."""
    return np.random.default_rng([seed, zlib.crc32(np.float64(timestep).tobytes()), *more])


def player_masks(players: Sequence[Word], tokens: int) -> npt.NDArray[np.float32]:
    """``(players, tokens, 1)``: 1 where a position belongs to a player."""
    masks = np.zeros((len(players), tokens, 1), np.float32)
    for index, player in enumerate(players):
        masks[index, list(player.tokens)] = 1.0
    return masks


def average_steps(
    maps: Sequence[FloatArray], norms: Sequence[FloatArray], weighting: StepWeighting
) -> FloatArray:
    """The mean over steps; ``"equal"`` divides each step by its mean ‖g‖ first."""
    if weighting == "equal":
        maps = [m / max(float(n.mean()), 1e-30) for m, n in zip(maps, norms, strict=True)]
    averaged: FloatArray = np.mean(np.stack(list(maps)), axis=0)
    return averaged
