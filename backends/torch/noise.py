"""Between what a UNet predicts and epsilon, by the scheduler's alpha and sigma."""

from __future__ import annotations

import numpy as np
import torch


class NoiseLevels:
    """The noise schedule of a pipeline: alpha and sigma at any timestep, whole or not."""

    def __init__(self, scheduler: object) -> None:
        table = getattr(scheduler, "alphas_cumprod", None)
        if table is None:
            raise ValueError(
                f"{type(scheduler).__name__} has no alphas_cumprod, so its predictions can't be "
                "brought to epsilon units"
            )
        self._cumulative = table.double().cpu().numpy()
        self.prediction = str(scheduler.config.prediction_type)  # type: ignore[attr-defined]
        if self.prediction not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(f"prediction_type {self.prediction!r} is not supported")

    @property
    def train_steps(self) -> int:
        """How many timesteps the model was trained on."""
        return len(self._cumulative)

    def at(self, timestep: float) -> tuple[float, float]:
        """Alpha and sigma, with alpha² + sigma² = 1; between timesteps by interpolation."""
        product = float(np.interp(timestep, np.arange(self.train_steps), self._cumulative))
        return product**0.5, (1.0 - product) ** 0.5

    def to_epsilon(
        self, output: torch.Tensor, latents: torch.Tensor, timestep: float
    ) -> torch.Tensor:
        """The noise that a prediction stands for.

        With x = alpha·x0 + sigma·ε: v = alpha·ε - sigma·x0 gives ε = alpha·v + sigma·x; a
        predicted x0 gives ε = (x - alpha·x0) / sigma.
        """
        if self.prediction == "epsilon":
            return output
        alpha, sigma = self.at(timestep)
        latents = latents[:, : output.shape[1]]
        if self.prediction == "v_prediction":
            return alpha * output + sigma * latents
        return (latents - alpha * output) / sigma
