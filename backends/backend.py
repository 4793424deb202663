"""The few primitives that every attribution method is written on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from wordlight.backends.attention import AttentionMeans, AttentionQuery
from wordlight.backends.tokens import Tokens
from wordlight.backends.trajectory import Trajectory

#: An array of the backend's framework; methods handle it through array-api-compat.
Array = Any


class MissingCapabilityError(RuntimeError):
    """A method needs a primitive that this backend hasn't."""


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What the denoiser is told besides latents and timestep.

    ``embeddings`` is ``(batch, tokens, channels)``; ``added`` holds whatever else the model takes,
    each ``(batch, ...)``.
    """

    embeddings: Array
    added: dict[str, Array] = field(default_factory=dict)


@dataclass
class Evaluations:
    """How often the denoiser ran, counted in rows: one latent with one conditioning is one.

    ``forward_equivalents`` weighs a forward pass 1, a forward-mode product 2, a reverse one 3.
    """

    forward: int = 0
    jvp: int = 0
    vjp: int = 0

    @property
    def forward_equivalents(self) -> int:
        """The cost in forward passes."""
        return self.forward + 2 * self.jvp + 3 * self.vjp

    def __sub__(self, other: Evaluations) -> Evaluations:
        return Evaluations(self.forward - other.forward, self.jvp - other.jvp, self.vjp - other.vjp)


class Backend(ABC):
    """A text-to-image model as a few primitives.

    Arrays in ``denoise`` and its relatives are the framework's own, on ``device``; trajectories
    are numpy and travel between frameworks.
    """

    framework: str
    model_id: str
    revision: str | None
    device: str
    dtype: str
    capabilities: frozenset[str]

    def __init__(self) -> None:
        self.evaluations = Evaluations()

    def require(self, needs: frozenset[str], who: str) -> None:
        """Raises MissingCapabilityError when ``who`` needs what this backend hasn't."""
        if missing := sorted(needs - self.capabilities):
            raise MissingCapabilityError(
                f"{who} needs {', '.join(missing)}, which the {self.framework} backend of "
                f"{self.model_id} doesn't give (it gives {', '.join(sorted(self.capabilities))})"
            )

    @abstractmethod
    def tokenize(self, prompt: str) -> Tokens:
        """The prompt's tokens with offsets, padded to the context.

        Raises PromptTooLongError when the context is too short.
        """

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """The conditioning that the real pipeline makes of the prompts."""

    @overload
    def sample(
        self,
        prompts: str,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        images_per_prompt: Literal[1] = 1,
        height: int | None = None,
        width: int | None = None,
    ) -> Trajectory: ...

    @overload
    def sample(
        self,
        prompts: str | Sequence[str],
        *,
        seed: int | Sequence[int] = 0,
        steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        images_per_prompt: int = 1,
        height: int | None = None,
        width: int | None = None,
    ) -> Trajectory | list[Trajectory]: ...

    @abstractmethod
    def sample(
        self,
        prompts: str | Sequence[str],
        *,
        seed: int | Sequence[int] = 0,
        steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | None = None,
        images_per_prompt: int = 1,
        height: int | None = None,
        width: int | None = None,
    ) -> Trajectory | list[Trajectory]:
        """Run the real pipeline and record what it went through.

        Args:
            prompts: one prompt (gives one trajectory) or several (gives a list, prompt by prompt).
            seed: of the initial noise. Image number k of the call has seed ``seed + k``; a
                sequence names one seed an image. An image depends on its own seed alone, not on
                what else is in the batch.
            steps, guidance_scale: as the model recommends where None.
            negative_prompt: what guidance pushes away from, instead of the empty prompt.
            images_per_prompt: with more than one, a list is given.
            height, width: in pixels; the model's own size where None.

        Raises:
            ValueError: an empty prompt, a size the model can't draw, a bad number.
            PromptTooLongError: a prompt that the context can't hold.
        """

    @abstractmethod
    def invert(
        self,
        images: Sequence[npt.NDArray[np.uint8]],
        prompts: Sequence[str],
        *,
        seed: int = 0,
        steps: int | None = None,
    ) -> list[Trajectory]:
        """Trajectories of given images ``(height, width, 3)`` uint8, by adding noise to them.

        At each timestep the image's latents are noised with one and the same draw of noise.
        """

    @abstractmethod
    def asarray(self, array: npt.ArrayLike) -> Array:
        """A float array of the framework, on the device, in the backend's dtype."""

    @abstractmethod
    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        """Back to numpy: float32, or float64 where the backend computes in that."""

    def denoise(self, latents: Array, timestep: float, conditioning: Conditioning) -> Array:
        """The prediction in epsilon units for ``latents`` ``(batch, channels, height, width)``.

        A v-prediction is converted by the scheduler's alpha and sigma. One timestep for all rows.
        """
        self.evaluations.forward += int(latents.shape[0])
        return self._denoise(latents, timestep, conditioning)

    def denoise_jvp(
        self, latents: Array, timestep: float, conditioning: Conditioning, tangents: Array
    ) -> Array:
        """Forward mode: how the prediction changes along each direction in embedding space.

        ``latents`` is ``(1, channels, height, width)``, ``tangents``
        ``(directions, tokens, channels)``; the answer ``(directions, channels, height, width)``.
        """
        if latents.shape[0] != 1:
            raise ValueError(f"denoise_jvp takes one latent at a time, not {latents.shape[0]}")
        self.evaluations.jvp += int(tangents.shape[0])
        return self._denoise_jvp(latents, timestep, conditioning, tangents)

    def attention(
        self, trajectory: Trajectory, query: AttentionQuery, steps: tuple[int, ...]
    ) -> AttentionMeans:
        """Replay the conditional rows and average the cross-attention that ``query`` asks for."""
        trajectory.check_replayable()
        self.evaluations.forward += len(steps)
        return self._attention(trajectory, query, steps)

    @abstractmethod
    def _denoise(self, latents: Array, timestep: float, conditioning: Conditioning) -> Array: ...

    @abstractmethod
    def _denoise_jvp(
        self, latents: Array, timestep: float, conditioning: Conditioning, tangents: Array
    ) -> Array: ...

    @abstractmethod
    def _attention(
        self, trajectory: Trajectory, query: AttentionQuery, steps: tuple[int, ...]
    ) -> AttentionMeans: ...

    def reset_peak_bytes(self) -> None:  # noqa: B027 - nothing to do is a fair default
        """Start measuring ``peak_bytes`` anew."""

    def peak_bytes(self) -> int | None:
        """The most device memory held since the last reset; None where the device doesn't tell."""
        return None

    def no_gradients(self) -> AbstractContextManager[object]:
        """A context in which nothing is recorded for differentiation."""
        from contextlib import nullcontext

        return nullcontext()
