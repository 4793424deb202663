"""One step of a trajectory, ready to be asked how the prompt shapes the prediction."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace

from wordlight.attribution.options import one_of
from wordlight.attribution.question import Question
from wordlight.attribution.targets import Predictions, StepTarget
from wordlight.attribution.words import Word
from wordlight.backends.backend import Array, Backend, Conditioning
from wordlight.backends.trajectory import Trajectory

#: What is varied: the text encoder's output, or its input (through the encoder).
InputSpace = Literal["embeddings", "tokens"]

#: How far rounding takes a position's embedding, of its length, through an encoder: in bfloat16
#: 1.5e-2 through the 23 layers of Stable Diffusion 2's. Anything more is another one, or an edit.
_SAME, _SAME_IN_HALF = 1e-3, 5e-2


@dataclass(frozen=True, eq=False)
class Inputs:
    """The inputs that a method varies, from the baseline to the prompt.

    Attributes:
        space: ``"embeddings"`` (the encoder's output) or ``"tokens"`` (its input embeddings).
        point, baseline: ``(1, tokens, channels)`` each.
        added: the step's further conditioning, ``(1, ...)`` each.
    """

    backend: Backend
    space: InputSpace
    point: Array
    baseline: Array
    added: dict[str, Array]

    @classmethod
    def of(cls, backend: Backend, question: Question, space: InputSpace) -> Inputs:
        """The inputs of a trajectory.

        Raises ValueError where the trajectory's embeddings are not what the encoder makes of its
        tokens, so that ``"tokens"`` would explain another run.
        """
        trajectory = question.trajectory
        added = backend.step_conditioning(trajectory, question.steps[0])
        point = backend.asarray(trajectory.embeddings[None])
        baseline = backend.asarray(question.baseline[None])
        if space == "tokens":
            xp = array_namespace(point)
            ends = [
                xp.expand_dims(backend.token_embeddings(text), axis=0)
                for text in (trajectory.prompt, question.baseline_text)
            ]
            tolerance = encoding_tolerance(backend, trajectory)
            for tokens, embeddings in zip(ends, (point, baseline), strict=True):
                if not embeddings_unchanged(
                    backend.encode_from(tokens).embeddings, embeddings, tolerance
                ):
                    raise ValueError(
                        "wrt='tokens' needs embeddings that the text encoder made of the prompt "
                        "alone; this run's are others (weighted, edited, or of another encoder)"
                    )
            point, baseline = ends
        if question.noise is not None:
            rng = np.random.default_rng(question.noise.seed)
            draw = rng.standard_normal(tuple(point.shape)) * question.noise.stdev
            point = point + backend.asarray(draw)
        return cls(backend, space, point, baseline, added)

    def conditioning(self, points: Array) -> Conditioning:
        """Return the denoiser's conditioning at some points, ``(batch, tokens, channels)``."""
        if self.space == "tokens":
            return self._told_besides(self.backend.encode_from(points))
        return self.with_added(points)

    def moved(self, point: Array, tangents: Array) -> tuple[Conditioning, Array]:
        """The conditioning at one point, and how its embeddings change along each tangent."""
        if self.space == "tokens":
            conditioning, changes = self.backend.encode_from_jvp(point, tangents)
            return self._told_besides(conditioning), changes
        return self.with_added(point), tangents

    def shared(self, parts: Array) -> tuple[Conditioning, Array, Array]:
        """The conditioning at the point, the embeddings at the baseline, and the parts of their
        difference that parts ``(batch, tokens, channels)`` of the inputs' difference have."""
        if self.space == "tokens":
            before = self.backend.encode_from(self.baseline).embeddings
            parts = self.backend.encode_from_parts(self.point, self.baseline, parts)
            return self.conditioning(self.point), before, parts
        return self.with_added(self.point), self.baseline, parts

    def _told_besides(self, made: Conditioning) -> Conditioning:
        """Return an encoder's conditioning with the step's further conditioning added."""
        return Conditioning(
            made.embeddings, {**self.with_added(made.embeddings).added, **made.added}
        )

    def with_added(self, embeddings: Array) -> Conditioning:
        """Embeddings, ``(batch, tokens, channels)``, with the step's further conditioning."""
        xp = array_namespace(embeddings)
        batch = embeddings.shape[0]
        added = {
            name: xp.broadcast_to(value, (batch, *value.shape[1:]))
            for name, value in self.added.items()
        }
        return Conditioning(embeddings, added)


@dataclass(frozen=True, eq=False)
class Step:
    """One step: its latents, what is varied, and the target f, zero at the baseline.

    Attributes:
        latents: ``(1, channels, height, width)``.
        drawn: the channels of them that the denoiser predicts the noise of.
        timestep: of the step.
        inputs: the inputs that are varied.
        target: f, as a function of the prediction.
        total: f at the inputs' point, ``(height, width)``: what complete methods share out.
        batch_size: largest batch of one denoiser pass.
    """

    backend: Backend
    latents: Array
    drawn: Array
    timestep: float
    inputs: Inputs
    target: StepTarget
    total: Array
    batch_size: int

    @property
    def point(self) -> Array:
        """The inputs, ``(1, tokens, channels)``."""
        return self.inputs.point

    @property
    def baseline(self) -> Array:
        """The inputs' baseline, ``(1, tokens, channels)``."""
        return self.inputs.baseline

    @property
    def displacement(self) -> Array:
        """From the baseline to the inputs."""
        return self.inputs.point - self.inputs.baseline

    def predict(self, points: Array) -> Array:
        """ε at each of the points ``(batch, tokens, channels)``."""
        return _predict(self.backend, self.latents, self.timestep, self.inputs.conditioning(points))

    def values(self, points: Array) -> Array:
        """f at each of the points: ``(batch, tokens, channels)`` to ``(batch, y, x)``."""
        xp = array_namespace(points)
        values = [
            self.target.values(self.predict(points[start : start + self.batch_size]))
            for start in range(0, points.shape[0], self.batch_size)
        ]
        return xp.concat(values, axis=0)

    def values_with(self, kept: Array) -> Array:
        """f where only some positions have the prompt's inputs, the others the baseline's.

        ``kept`` is ``(batch, tokens, 1)``, 1 or 0, or how far to go between the two; gives
        ``(batch, y, x)``.
        """
        xp = array_namespace(self.point)
        between = self.baseline + kept * self.displacement
        # In half precision the way from the baseline ends beside the prompt's own inputs.
        return self.values(xp.where(kept == 1, self.point, between))

    def slopes(self, point: Array, tangents: Array) -> Array:
        """Return the derivative of f at a point ``(1, tokens, channels)`` along each of the
        tangents ``(batch, tokens, channels)``: ``(batch, y, x)``."""
        xp = array_namespace(tangents)
        conditioning, changes = self.inputs.moved(point, tangents)
        parts = []
        for start in range(0, tangents.shape[0], self.batch_size):
            prediction, moved = self.backend.denoise_jvp(
                self.latents, self.timestep, conditioning, changes[start : start + self.batch_size]
            )
            parts.append(self.target.slopes(wide(prediction), wide(moved)))
        return xp.concat(parts, axis=0)

    def shares(self, parts: Array) -> Array:
        """The shares that parts ``(batch, tokens, channels)`` of the displacement have in f at the
        point, by the rescale rule: ``(batch, y, x)``.

        Raises ValueError where the target is not linear in the prediction.
        """
        if not self.target.linear:
            raise ValueError(
                "the target isn't linear in the prediction, and deeplift shares out only such: "
                "leave target out (Guidance), or ask for a Region of it"
            )
        xp = array_namespace(parts)
        conditioning, baseline, parts = self.inputs.shared(parts)
        found = []
        for start in range(0, parts.shape[0], self.batch_size):
            some = parts[start : start + self.batch_size]
            moved = self.backend.denoise_parts(
                self.latents, self.timestep, conditioning, baseline, some
            )
            found.append(self.target.slopes(wide(moved[:1]), wide(moved)))
        return xp.concat(found, axis=0)


def prepare_step(question: Question, inputs: Inputs, step: int) -> Step:
    """Prepare one step: costs two forward passes, and a third where noise was added."""
    backend, trajectory = inputs.backend, question.trajectory
    inputs = replace(inputs, added=backend.step_conditioning(trajectory, step))
    latents = backend.asarray(trajectory.latents[step][None])
    timestep = float(trajectory.timesteps[step])
    xp = array_namespace(latents)
    ends = backend.asarray(np.stack([trajectory.embeddings, question.baseline]))
    passes = [
        ends[start : start + question.batch_size] for start in range(0, 2, question.batch_size)
    ]
    pair = xp.concat(
        [_predict(backend, latents, timestep, inputs.with_added(some)) for some in passes], axis=0
    )
    # Inpainting models are told the mask and the masked image in more channels.
    drawn = latents[:, : pair.shape[1]]
    predictions = Predictions(backend, drawn, trajectory, step, pair[:1], pair[1:])
    target = question.target.prepare(predictions)
    full = pair[:1]
    if question.noise is not None:
        full = _predict(backend, latents, timestep, inputs.conditioning(inputs.point))
    total = target.values(full)[0]
    return Step(backend, latents, drawn, timestep, inputs, target, total, question.batch_size)


def _predict(
    backend: Backend, latents: Array, timestep: float, conditioning: Conditioning
) -> Array:
    xp = array_namespace(latents)
    shape = (conditioning.embeddings.shape[0], *latents.shape[1:])
    return wide(backend.denoise(xp.broadcast_to(latents, shape), timestep, conditioning))


def encoding_tolerance(backend: Backend, trajectory: Trajectory) -> float:
    """Return the largest relative difference allowed between a backend's encoding of a run's prompt
    and the run's own: half precision on either side makes it more."""
    # A run doesn't say its precision, but half's numbers end in zeros.
    ends = np.asarray(trajectory.embeddings, np.float32).view(np.uint32) & 0x1FFF
    half = backend.dtype in ("float16", "bfloat16") or not ends.any()
    return _SAME_IN_HALF if half else _SAME


def embeddings_unchanged(made: Array, own: Array, tolerance: float) -> bool:
    """Return whether embeddings are a run's own, each position's but for a share of its length."""
    if made.shape != own.shape:
        return False
    made, own = wide(made), wide(own)
    xp = array_namespace(own)
    off, length = (xp.sqrt(xp.sum(x * x, axis=-1)) for x in (made - own, own))
    return bool(xp.all(off <= tolerance * length))


def wide(array: Array) -> Array:
    """At least float32: squares of half-precision predictions underflow."""
    xp = array_namespace(array)
    return xp.astype(array, xp.float32) if array.dtype.itemsize < 4 else array


def step_rng(seed: int, timestep: float, *more: int) -> np.random.Generator:
    """The random numbers of one step of a method: other ones at each timestep, the same again."""
    return np.random.default_rng([seed, zlib.crc32(np.float64(timestep).tobytes()), *more])


def player_masks(players: Sequence[Word], tokens: int) -> npt.NDArray[np.float32]:
    """``(players, tokens, 1)``: 1 where a position belongs to a player."""
    masks = np.zeros((len(players), tokens, 1), np.float32)
    for index, player in enumerate(players):
        masks[index, list(player.tokens)] = 1.0
    return masks


def check_space(space: str) -> InputSpace:
    """Raises ValueError for anything but ``"embeddings"`` and ``"tokens"``."""
    return one_of("wrt", space, get_args(InputSpace))
