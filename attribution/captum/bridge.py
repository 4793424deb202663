"""A model of another framework as torch sees it; imported once Captum is asked for, not before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.autograd.function import once_differentiable

from wordlight.backends.attention import AttentionMeans, AttentionQuery, OtherKeys
from wordlight.backends.backend import Array, Backend, Conditioning, Evaluations
from wordlight.backends.tokens import Tokens
from wordlight.backends.trajectory import Trajectory


def as_torch(backend: Backend) -> Backend:
    """The backend itself where its arrays are torch's, else a bridge to it."""
    if backend.framework == "torch" or isinstance(backend, TorchBridge):
        return backend
    return TorchBridge(backend)


class TorchBridge(Backend):
    """Another framework's backend with tensors for arrays: ``denoise`` is differentiable with
    respect to the embeddings through the backend's own ``denoise_vjp``.

    A gradient costs what the backend counts: the forward pass, and a reverse-mode product, which
    goes forward once more. Tensors are on the CPU, float64 where the model is, else float32.
    """

    def __init__(self, inner: Backend) -> None:
        self.inner, self.limits = inner, inner.limits
        self.framework, self.device, self.dtype = inner.framework, inner.device, inner.dtype
        self.model_id, self.revision = inner.model_id, inner.revision

    @property
    def evaluations(self) -> Evaluations:
        """The inner backend's: one count for both."""
        return self.inner.evaluations

    @evaluations.setter
    def evaluations(self, counts: Evaluations) -> None:
        self.inner.evaluations = counts

    @contextmanager
    def counting_apart(self) -> Iterator[Evaluations]:
        with self.inner.counting_apart() as spent:
            yield spent

    @property
    def capabilities(self) -> frozenset[str]:
        """The primitives that go through tensors here."""
        return self.inner.capabilities & {"denoise", "attention", "self_attention"}

    @property
    def added_names(self) -> frozenset[str]:
        return self.inner.added_names

    def asarray(self, array: npt.ArrayLike) -> torch.Tensor:
        dtype = torch.float64 if self.dtype == "float64" else torch.float32
        return torch.as_tensor(np.array(array), dtype=dtype)

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        converted: npt.NDArray[Any] = array.detach().numpy()
        return converted

    def noise_level(self, timestep: float) -> tuple[float, float]:
        return self.inner.noise_level(timestep)

    def noise_level_at(self, trajectory: Trajectory, step: int) -> tuple[float, float]:
        return self.inner.noise_level_at(trajectory, step)

    def no_gradients(self) -> AbstractContextManager[object]:
        return torch.no_grad()

    def peak_bytes(self) -> int | None:
        return self.inner.peak_bytes()

    def reset_peak_bytes(self) -> None:
        self.inner.reset_peak_bytes()

    def tokenize(self, prompt: str) -> Tokens:
        return self.inner.tokenize(prompt)

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        made = self.inner.encode(prompts)
        return Conditioning(
            self.asarray(self.inner.to_numpy(made.embeddings)),
            {name: self.asarray(self.inner.to_numpy(v)) for name, v in made.added.items()},
        )

    def sample(self, prompts: Any, **options: Any) -> Any:
        return self.inner.sample(prompts, **options)

    def invert(self, images: Any, prompts: Any, **options: Any) -> Any:
        return self.inner.invert(images, prompts, **options)

    def _denoise(self, latents: Array, timestep: float, conditioning: Conditioning) -> Array:
        embeddings = conditioning.embeddings
        if torch.is_grad_enabled() and embeddings.requires_grad:
            self.inner.require(frozenset({"denoise_vjp"}), "a gradient for Captum")
        return _Denoise.apply(embeddings, latents, timestep, conditioning.added, self.inner)  # type: ignore[no-untyped-call]

    def _attention(
        self,
        trajectory: Trajectory,
        query: AttentionQuery,
        steps: tuple[int, ...],
        keys: OtherKeys | None,
    ) -> AttentionMeans:
        if keys is not None:
            there = self.inner.asarray(self.to_numpy(keys.embeddings))
            keys = keys._replace(embeddings=there)
        return self.inner._attention(trajectory, query, steps, keys)


class _Denoise(torch.autograd.Function):
    """The other framework's prediction, and its vector-Jacobian product as the gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        embeddings: torch.Tensor,
        latents: torch.Tensor,
        timestep: float,
        added: dict[str, torch.Tensor],
        inner: Backend,
    ) -> torch.Tensor:
        there = [inner.asarray(tensor.detach().numpy()) for tensor in (embeddings, latents)]
        conditioning = Conditioning(
            there[0], {name: inner.asarray(v.detach().numpy()) for name, v in added.items()}
        )
        ctx.question = (there[1], timestep, conditioning)
        ctx.inner = inner
        prediction = inner.to_numpy(inner._denoise(there[1], timestep, conditioning))
        return torch.tensor(prediction, dtype=embeddings.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        latents, timestep, conditioning = ctx.question
        cotangent = ctx.inner.asarray(gradients[0].numpy())
        gradient = ctx.inner.denoise_vjp(latents, timestep, conditioning, cotangent)
        made = torch.tensor(ctx.inner.to_numpy(gradient), dtype=gradients[0].dtype)
        return made, None, None, None, None
