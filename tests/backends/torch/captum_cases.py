"""Models and runs on which Captum's answers are held against this library's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.backends.torch.tiny import build_tiniest_pipe
from tests.toys import ToyBackend
from wordlight.attribution import (
    Shapley,
    TextImageAttributor,
)
from wordlight.attribution.captum.region import (
    CaptumForward,
    WordInput,
    captum_forward,
    word_input,
)
from wordlight.attribution.question import Question
from wordlight.backends import Trajectory
from wordlight.backends.backend import Backend, Conditioning
from wordlight.backends.torch.backend import TorchBackend

#: For files in which Captum's metrics hand perturbed inputs on that don't require gradients yet,
#: and its gradient methods say so.
QUIET = pytest.mark.filterwarnings(
    "ignore:Input Tensor 0 did not already require gradients:UserWarning"
)
ROOT = Path(__file__).parents[3]
#: Four words; with the special positions as one player, 5! = 120 orders.
PROMPT = "a red circle."
STEP = 1


class ReversibleToy(ToyBackend):
    """The toy with a reverse-mode product, as a backend of another framework has it, and a prompt
    that the model hears times the timestep over 500 (times 1 at ``STEP``)."""

    capabilities = ToyBackend.capabilities | {"denoise_vjp"}

    def __init__(self, bend: str = "linear") -> None:
        super().__init__(bend=bend)
        self.rows: list[int] = []

    def _denoise(self, latents: Any, timestep: float, conditioning: Any) -> Any:
        self.rows.append(len(latents))
        return super()._denoise(latents, timestep, self._at(timestep, conditioning))

    def _denoise_jvp(self, latents: Any, timestep: float, conditioning: Any, tangents: Any) -> Any:
        # The parent's own forward pass comes back here, and scales once more.
        _, change = super()._denoise_jvp(
            latents, timestep, self._at(timestep, conditioning), timestep / 500 * tangents
        )
        return self._denoise(latents, timestep, conditioning), change

    def _denoise_vjp(self, latents: Any, timestep: float, conditioning: Any, cotangent: Any) -> Any:
        if self._bend == "saturating":
            push = self._push(self._at(timestep, conditioning).embeddings)
            cotangent = cotangent / np.cosh(push) ** 2
        return timestep / 500 * np.einsum("cyxtd,bcyx->btd", self.jacobian, cotangent)

    @staticmethod
    def _at(timestep: float, conditioning: Any) -> Conditioning:
        return Conditioning(timestep / 500 * conditioning.embeddings)


@dataclass
class Case:
    """A model, a run of it, a region, and how near to each other two answers must be."""

    backend: Backend
    trajectory: Trajectory
    region: np.ndarray[Any, Any]
    forward: CaptumForward
    words: WordInput
    tolerance: float

    def ours(self, method: type[TextImageAttributor], **options: Any) -> np.ndarray[Any, Any]:
        """Our method's maps summed over the region, in the precision they were computed in.

        A set of words that comes again isn't predicted again.
        """
        known: dict[bytes, Any] = {}
        predict = self.backend._denoise

        def remembered(latents: Any, timestep: float, conditioning: Any) -> Any:
            rows = conditioning.embeddings
            keys = [row.detach().cpu().numpy().tobytes() for row in rows]
            fresh = [i for i, key in enumerate(keys) if key not in known]
            if fresh:
                made = predict(latents[fresh], timestep, Conditioning(rows[fresh]))
                known.update(zip([keys[i] for i in fresh], made, strict=True))
            return torch.stack([known[key] for key in keys])

        question = Question(
            trajectory=self.trajectory,
            players=self.words.players,
            steps=(STEP,),
            baseline=self.trajectory.empty_embeddings,
        )
        with pytest.MonkeyPatch.context() as patch:
            if method is Shapley:
                patch.setattr(self.backend, "_denoise", remembered)
            maps = method(self.backend, steps=(STEP,), **options)._attribute(question).maps
        return (maps.values.astype(np.float64) * self.region).sum((1, 2))

    def distance(self, scores: torch.Tensor, ours: np.ndarray[Any, Any]) -> float:
        """The largest difference of a word, relative to Σ_region ‖g‖."""
        total = (self.forward.steps[0].total.double().numpy() * self.region).sum()
        return float(np.abs(scores[0].double().numpy() - ours).max() / total)


def make_case(backend: Backend, tolerance: float, size: int | None = None) -> Case:
    trajectory = backend.sample(PROMPT, seed=0, steps=3, height=size, width=size)
    height, width = trajectory.grid
    region = np.zeros((height, width))
    region[height // 4 : height // 2, : width // 2] = 1.0
    forward = captum_forward(backend, trajectory, region=region, steps=[STEP])
    words = word_input(forward, trajectory, group_specials=True)
    return Case(backend, trajectory, region, forward, words, tolerance)


def tiny(dtype: torch.dtype) -> TorchBackend:
    pipe = build_tiniest_pipe()
    for part in (pipe.unet, pipe.text_encoder, pipe.vae):
        torch.nn.Module.to(part, dtype)
    return TorchBackend(pipe, model_id="tiny", steps=3, guidance_scale=3.0)
