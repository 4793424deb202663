"""Schedulers as tables: for each step what becomes of the latents, worked out beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from wordlight.backends.flax.config import read_config
from wordlight.backends.flax.errors import UnsupportedConfigError

Floats = npt.NDArray[np.float64]
SchedulerName = Literal["ddim", "euler"]

_CLASSES: dict[str, SchedulerName] = {"DDIMScheduler": "ddim", "EulerDiscreteScheduler": "euler"}
#: What isn't linear in latents and prediction, or draws noise on the way.
_ONLY: dict[SchedulerName, dict[str, tuple[Any, ...]]] = {
    "ddim": {
        "clip_sample": (False,),
        "thresholding": (False,),
        "rescale_betas_zero_snr": (False,),
        "timestep_spacing": ("leading", "linspace", "trailing"),
    },
    "euler": {
        "interpolation_type": ("linear",),
        "use_karras_sigmas": (False, None),
        "use_exponential_sigmas": (False, None),
        "use_beta_sigmas": (False, None),
        "sigma_min": (None,),
        "sigma_max": (None,),
        "timestep_type": ("discrete",),
        "final_sigmas_type": ("zero",),
        "rescale_betas_zero_snr": (False,),
        "timestep_spacing": ("leading", "linspace", "trailing"),
    },
}
#: Settings of one scheduler or another. A file keeps those of the schedulers that its scheduler was
#: once made of; to all but their own they mean nothing.
_OF_SOME_SCHEDULER = (
    "clip_sample clip_sample_range thresholding dynamic_thresholding_ratio sample_max_value "
    "set_alpha_to_one skip_prk_steps variance_type interpolation_type use_karras_sigmas "
    "use_exponential_sigmas use_beta_sigmas sigma_min sigma_max timestep_type final_sigmas_type "
    "algorithm_type solver_order solver_type lower_order_final euler_at_final use_lu_lambdas "
    "lambda_min_clipped"
).split()
_PREDICTIONS = ("epsilon", "v_prediction", "sample")
#: What the noise itself is like, whatever scheduler goes through it.
_NOISE = (
    "num_train_timesteps beta_start beta_end beta_schedule trained_betas prediction_type "
    "timestep_spacing steps_offset set_alpha_to_one clip_sample thresholding "
    "rescale_betas_zero_snr"
).split()


@dataclass(frozen=True, eq=False)
class StepTable:
    """A run's coefficients: float64, one entry a step.

    At each step the denoiser sees ``scale · x`` and gives ``out``; then ``x`` becomes
    ``keep · x + add · out``. The first ``x`` is ``start`` times standard normal noise.
    """

    timesteps: Floats
    scale: Floats
    keep: Floats
    add: Floats
    start: float


@dataclass(frozen=True)
class SchedulerConfig:
    """The settings in a scheduler_config.json; the defaults are diffusers'."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    prediction_type: str = "epsilon"
    timestep_spacing: str = ""
    steps_offset: int = 0
    set_alpha_to_one: bool = True


class Schedule:
    """The noise that a model was trained with, and a way through it.

    Args:
        given: the content of scheduler_config.json.
        scheduler: ``"ddim"`` or ``"euler"``, to take this one with the file's noise; what the file
            asks for if None.

    Raises:
        UnsupportedConfigError: a scheduler that no table expresses, naming what is in the way.
    """

    def __init__(
        self, given: Mapping[str, Any], scheduler: SchedulerName | str | None = None
    ) -> None:
        asked = str(given.get("_class_name"))
        if scheduler is None and asked not in _CLASSES:
            raise UnsupportedConfigError(
                f"the Flax backend can't go through the steps of a {asked}: "
                "scheduler='ddim' (--scheduler ddim) takes DDIM with the same noise, or 'euler'"
            )
        if scheduler is not None and scheduler not in get_args(SchedulerName):
            raise UnsupportedConfigError(f"scheduler must be 'ddim' or 'euler', not {scheduler!r}")
        self.name: str = scheduler or _CLASSES[asked]
        if asked != next(kind for kind, name in _CLASSES.items() if name == self.name):
            # Another scheduler's own keys mean nothing here.
            given = {key: value for key, value in given.items() if key in _NOISE}
        elif self.name == "ddim":
            given = {"clip_sample": True, **given}  # diffusers' default
        self.config = _read(given, self.name)
        self.prediction = self.config.prediction_type
        betas = _betas(self.config)
        if betas.max() >= 1.0:
            raise UnsupportedConfigError(
                f"Scheduler: its betas reach {betas.max():g}, and must stay below 1: no table of "
                "steps begins at noise alone"
            )
        self.cumulative = np.cumprod(1.0 - betas)

    @property
    def train_steps(self) -> int:
        """The number of timesteps that the model was trained on."""
        return len(self.cumulative)

    def level(self, timestep: float) -> tuple[float, float]:
        """Alpha and sigma, with alpha² + sigma² = 1; between timesteps by interpolation."""
        product = float(np.interp(timestep, np.arange(self.train_steps), self.cumulative))
        return product**0.5, (1.0 - product) ** 0.5

    def table(self, steps: int) -> StepTable:
        """Return a run of ``steps`` steps.

        Raises ValueError where they would leave the training's range.
        """
        times = self._timesteps(steps)
        if times.max() > self.train_steps - 1:
            raise ValueError(
                f"{steps} steps begin at timestep {times.max():g}, beyond the last one that the "
                f"model was trained on, {self.train_steps - 1}: take fewer steps"
            )
        return self._ddim(times, steps) if self.name == "ddim" else self._euler(times)

    def _timesteps(self, steps: int) -> Floats:
        config, count = self.config, self.train_steps
        if config.timestep_spacing == "linspace":
            even: Floats = np.linspace(0, count - 1, steps, dtype=np.float64)[::-1]
            return even.round() if self.name == "ddim" else even
        if config.timestep_spacing == "trailing":
            # Where the stride is rounded down, arange goes a step too far, to timestep -1.
            return np.rint(np.arange(count, 0, -count / steps, dtype=np.float64)[:steps]) - 1.0
        leading = np.arange(steps, dtype=np.float64)[::-1] * (count // steps)
        return leading + config.steps_offset

    def _ddim(self, times: Floats, steps: int) -> StepTable:
        """Song et al. 2021 (arXiv 2010.02502) without noise: the clean latents and the noise that
        the prediction stands for, mixed anew."""
        now = times.astype(int)
        then = now - self.train_steps // steps
        last = 1.0 if self.config.set_alpha_to_one else self.cumulative[0]
        product = self.cumulative[now]
        after = np.where(then >= 0, self.cumulative[np.maximum(then, 0)], last)
        alpha, sigma = np.sqrt(product), np.sqrt(1.0 - product)
        clean, noise = _meaning(self.prediction, alpha, sigma)
        mix, rest = np.sqrt(after), np.sqrt(1.0 - after)
        keep, add = (mix * clean[i] + rest * noise[i] for i in (0, 1))
        return StepTable(times, np.ones_like(times), keep, add, 1.0)

    def _euler(self, times: Floats) -> StepTable:
        """Karras et al. 2022 (arXiv 2206.00364), algorithm 1: latents are clean + ratio · noise,
        and go straight along the noise that the prediction stands for."""
        ratios = np.sqrt((1.0 - self.cumulative) / self.cumulative)
        ratio = np.interp(times, np.arange(self.train_steps), ratios)
        scale = 1.0 / np.sqrt(ratio**2 + 1.0)
        # Of scaled latents, alpha is the scale and sigma ratio times the scale.
        _, noise = _meaning(self.prediction, scale, ratio * scale)
        change = np.append(ratio[1:], 0.0) - ratio
        largest = float(ratio.max())
        start = largest if self.config.timestep_spacing != "leading" else (largest**2 + 1) ** 0.5
        return StepTable(times, scale, 1.0 + change * noise[0] * scale, change * noise[1], start)


def _meaning(
    prediction: str, alpha: Floats, sigma: Floats
) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Clean latents and noise, each as factors of the latents x = alpha·clean + sigma·noise and of
    the prediction."""
    zero, one = np.zeros_like(alpha), np.ones_like(alpha)
    if prediction == "epsilon":
        return (1.0 / alpha, -sigma / alpha), (zero, one)
    if prediction == "v_prediction":
        return (alpha, -sigma), (sigma, alpha)
    return (zero, one), (1.0 / sigma, -alpha / sigma)


def _read(given: Mapping[str, Any], name: str) -> SchedulerConfig:
    only = {**_ONLY[name], "prediction_type": _PREDICTIONS}  # type: ignore[index]
    spacing = given.get("timestep_spacing") or ("leading" if name == "ddim" else "linspace")
    try:
        config = read_config(
            SchedulerConfig,
            given,
            only=only,
            without_effect=[
                key
                for key in _OF_SOME_SCHEDULER
                if key not in only and key not in SchedulerConfig.__dataclass_fields__
            ],
            or_zero=("beta_start", "beta_end", "steps_offset", "trained_betas"),
        )
    except UnsupportedConfigError as error:
        other = "euler" if name == "ddim" else "ddim"
        raise UnsupportedConfigError(
            f"{error} (or load(..., scheduler={other!r}), where that has no such setting)"
        ) from None
    return replace(config, timestep_spacing=spacing)


def _betas(config: SchedulerConfig) -> Floats:
    count, first, last = config.num_train_timesteps, config.beta_start, config.beta_end
    if config.trained_betas is not None:
        return np.asarray(config.trained_betas, np.float64)
    if config.beta_schedule == "linear":
        return np.linspace(first, last, count)
    if config.beta_schedule == "scaled_linear":
        return np.linspace(first**0.5, last**0.5, count) ** 2
    if config.beta_schedule == "squaredcos_cap_v2":
        left = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
        capped: Floats = np.minimum(1.0 - left[1:] / left[:-1], 0.999)
        return capped
    raise UnsupportedConfigError(
        f"Scheduler: beta_schedule={config.beta_schedule!r} isn't supported by the Flax backend, "
        "only 'linear', 'scaled_linear' and 'squaredcos_cap_v2'"
    )
