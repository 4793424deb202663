"""Between what a denoiser predicts and epsilon, by the noise levels of its scheduler."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

_PREDICTIONS = ("epsilon", "v_prediction", "sample")


class NoiseLevels:
    """The noise schedule of a scheduler as it stands: alpha and sigma of any timestep, whole or
    not.

    Raises ValueError for a scheduler or a kind of prediction that can't be brought to epsilon.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler, self._config = scheduler, scheduler.config
        table = getattr(scheduler, "alphas_cumprod", None)
        #: Karras et al.'s preconditioning: the scheduler scales what goes in and what comes out.
        self._preconditioned = table is None and hasattr(scheduler, "precondition_outputs")
        if table is None and not self._preconditioned:
            raise ValueError(
                f"{type(scheduler).__name__} has no alphas_cumprod, so its predictions can't be "
                "brought to epsilon units"
            )
        self._cumulative = np.ones(1) if table is None else table.double().cpu().numpy()
        self.prediction = str(self._config.prediction_type)
        if self.prediction not in _PREDICTIONS:
            raise ValueError(f"prediction_type {self.prediction!r} is not supported")

    @property
    def train_steps(self) -> int:
        """The number of timesteps that the model was trained on."""
        return int(self._config.num_train_timesteps)

    def at(self, timestep: float) -> tuple[float, float]:
        """Alpha and sigma: what the denoiser sees is ``alpha · clean + sigma · noise``."""
        if self._preconditioned:
            noise = math.exp(4 * timestep)
            length = math.hypot(noise, float(self._config.sigma_data))
            return 1 / length, noise / length
        if self._config.get("timestep_type") == "continuous":
            return _normalised(math.exp(4 * timestep))
        own = self._of_the_run(timestep)
        return self._between(timestep) if own is None else _normalised(own)

    def _of_the_run(self, timestep: float) -> float | None:
        """The noise to signal that the scheduler has for one of its present timesteps; None for
        another one, and for schedulers that have no such list."""
        levels = getattr(self._scheduler, "sigmas", None)
        times = getattr(self._scheduler, "timesteps", None)
        if not isinstance(levels, torch.Tensor) or not isinstance(times, torch.Tensor):
            return None
        if self._config.get("use_flow_sigmas") or len(levels) < len(times):
            return None
        (found,) = np.nonzero(times.double().cpu().numpy() == timestep)
        return float(levels[int(found[0])]) if len(found) else None

    def _between(self, timestep: float) -> tuple[float, float]:
        """Alpha and sigma from the table of whole timesteps, between them as the scheduler goes."""
        places = np.arange(len(self._cumulative))
        if float(timestep).is_integer() or not hasattr(self._scheduler, "sigmas"):
            product = float(np.interp(timestep, places, self._cumulative))
            return product**0.5, (1.0 - product) ** 0.5
        with np.errstate(divide="ignore"):
            ratios = np.sqrt((1 - self._cumulative) / self._cumulative)
        names = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
        if any(self._config.get(name) for name in names):
            return _normalised(math.exp(float(np.interp(timestep, places, np.log(ratios)))))
        return _normalised(float(np.interp(timestep, places, ratios)))

    def epsilon_at(self, timestep: float) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """The noise at a timestep as a function of the prediction and of what the denoiser saw.

        With x = alpha·x0 + sigma·ε: v = alpha·ε - sigma·x0 gives ε = alpha·v + sigma·x; a
        predicted x0 gives ε = (x - alpha·x0) / sigma.
        """
        alpha, sigma = self.at(timestep)
        if self._preconditioned:
            return self._preconditioned_at(alpha, sigma)
        if self.prediction == "epsilon":
            return lambda output, _latents: output
        if self.prediction == "v_prediction":
            return lambda output, latents: alpha * output + sigma * _first(latents, output)
        return lambda output, latents: (_first(latents, output) - alpha * output) / sigma

    def _preconditioned_at(
        self, alpha: float, sigma: float
    ) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        ratio = torch.tensor(sigma / alpha)

        def epsilon(output: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
            seen = _first(latents, output)
            clean = self._scheduler.precondition_outputs(
                seen / alpha, output, ratio.to(output.device)
            )
            noise: torch.Tensor = ((seen - alpha * clean) / sigma).to(output.dtype)
            return noise

        return epsilon


def _first(latents: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    # Inpainting models see the mask and the masked image in more channels.
    return latents[:, : output.shape[1]]


def _normalised(ratio: float) -> tuple[float, float]:
    """Alpha and sigma, with alpha² + sigma² = 1, of a noise to signal."""
    if math.isinf(ratio):
        return 0.0, 1.0
    return 1 / math.hypot(1, ratio), ratio / math.hypot(1, ratio)


def sigma_now(scheduler: Any, timestep: Any) -> float:
    """The noise level of a flow-matching scheduler at the step that it is about to take.

    Raises ValueError for a scheduler that has no list of its noise levels.
    """
    sigmas, index = getattr(scheduler, "sigmas", None), getattr(scheduler, "step_index", None)
    if not isinstance(sigmas, torch.Tensor):
        raise ValueError(
            f"{type(scheduler).__name__} has no list of noise levels, which this denoiser is told "
            "nothing else of"
        )
    if index is None:
        # Until its first step.
        index = getattr(scheduler, "begin_index", None)
    if index is None:
        # GLM-Image's denoiser is told one less than the scheduler's.
        last = timestep.reshape(-1)[-1] if isinstance(timestep, torch.Tensor) else timestep
        index = int((scheduler.timesteps - last).abs().argmin())
    return float(sigmas[index])
