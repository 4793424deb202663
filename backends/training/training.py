"""Parts that the stages of the training share: settings, seeds a step, the moving average, the
log."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from wordlight.backends.training.blueprints import Blueprint
from wordlight.backends.training.checkpoint import load_checkpoint, save_checkpoint

#: How noisy the denoiser's training images are, by the step from which on they are so (see
#: ``draw_timesteps``). The words that say where things lie stay unused for long; in the one run
#: that there is they came in with a while of little but noise. Shapes are decided in the middle.
TIMESTEP_SHIFTS: Mapping[int, float] = {0: 0.8, 4000: 2.0, 6000: 0.2}


@dataclass(frozen=True)
class Recipe:
    """The settings of a stage's training. ``cooldown`` is the number of last steps that lower the
    rate to zero."""

    steps: int
    batch: int
    rate: float
    warmup: int
    cooldown: int
    seed: int
    average_decay: float = 0.999
    clip: float = 1.0

    def rate_at(self, step: int) -> float:
        """The learning rate of step number ``step``: warm-up, level, linear cooldown."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        fall = min(1.0, (self.steps - step) / max(1, self.cooldown))
        return self.rate * rise * fall

    def decay_at(self, step: int) -> float:
        """The moving average's decay, shorter in the beginning."""
        return min(self.average_decay, (1 + step) / (10 + step))


@dataclass(frozen=True)
class Setup:
    """The arguments that all stages of a training share.

    Attributes:
        blueprint: of the model.
        folder: of the checkpoints.
        recipe: the settings of this stage.
        images: the number of different images to train on.
        device: in PyTorch's notation.
        save_every: the number of steps between checkpoints.
        workers: the number of processes that render images.
        eager: on a GPU too, don't replay steps as a CUDA graph.
    """

    blueprint: Blueprint
    folder: Path
    recipe: Recipe
    images: int
    device: str = "cpu"
    save_every: int = 500
    workers: int = 1
    eager: bool = False


def shift_at(shifts: Mapping[int, float], step: int) -> float:
    """The timesteps' shift at a step, of shifts by the step from which on they hold."""
    return shifts[max(start for start in shifts if start <= step)]


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step: they depend on nothing but seed and step, so a resumed run
    draws what an unbroken one would have drawn."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def epoch_order(count: int, seed: int, epoch: int) -> torch.Tensor:
    """The order of the training data in one epoch."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 7_919 + epoch))


def batch_indices(count: int, batch: int, seed: int, step: int) -> torch.Tensor:
    """Return the indices, of ``count`` training items, that step number ``step`` sees."""
    per_epoch = count // batch
    epoch, place = divmod(step, per_epoch)
    return epoch_order(count, seed, epoch)[place * batch : (place + 1) * batch]


class Run:
    """One stage's model, optimizer and moving average, saved to and resumed from a folder."""

    def __init__(
        self, folder: Path, name: str, model: torch.nn.Module, recipe: Recipe, facts: dict[str, Any]
    ) -> None:
        self.model = model
        self.recipe = recipe
        self.path = folder / f"{name}.safetensors"
        self._log_path = folder / f"{name}.jsonl"
        self.settings = {**asdict(recipe), **facts}
        device = next(model.parameters()).device
        on_gpu = device.type == "cuda"
        # A CUDA graph reads what changes from step to step off the card.
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=torch.tensor(recipe.rate, device=device) if on_gpu else recipe.rate,
            betas=(0.9, 0.99),
            weight_decay=0.01,
            fused=True,
            capturable=on_gpu,
        )
        self._new_share = torch.zeros((), device=device)
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.step = 0
        if self.path.exists():
            self._resume()

    def _resume(self) -> None:
        self.step, before = load_checkpoint(self.path, self.model, self.average, self.optimizer)
        # How long a run goes on, in which precision, and which noise it looks at the most, may be
        # changed when it resumes (the log tells); what it learns from may not.
        free = {"steps", "cooldown", "threads", "timestep_shifts", "bfloat16", "compiled"}
        differing = {
            key: (before.get(key), value)
            for key, value in self.settings.items()
            if key not in free and before.get(key) != value
        }
        if differing:
            raise ValueError(f"{self.path} was made with other settings: {differing}")
        shown = ("timestep_shifts", "bfloat16", "compiled")
        told = {k: v for k, v in self.settings.items() if k in shown}
        self.log(event="resumed", at=self.step, **told)

    def update(self, loss: torch.Tensor) -> None:
        """One optimizer step; advances the moving average and the step count."""
        self.begin_step()
        self.apply(loss)
        self.step += 1

    def begin_step(self) -> None:
        """Set the learning rate and the moving average's decay of this step."""
        rate = self.recipe.rate_at(self.step)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._new_share.fill_(1.0 - self.recipe.decay_at(self.step))

    def apply(self, loss: torch.Tensor) -> None:
        """Change weights and moving average by a loss; the step count stays."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        with torch.no_grad():
            for key, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.average[key].lerp_(value, self._new_share)

    def cool_down(self, steps: int) -> None:
        """Let the rate fall from now on, and end after ``steps``.

        The log tells the numbers that ``--steps`` and ``--cooldown`` need to train the same again.
        """
        self.recipe = replace(self.recipe, steps=self.step + steps, cooldown=steps)
        self.settings |= asdict(self.recipe)
        self.log(event="cooldown", steps=self.recipe.steps, cooldown=steps)

    def save(self, compact: bool = False) -> Path:
        """Write the checkpoint; returns where."""
        path = self.path.with_name("compact-" + self.path.name) if compact else self.path
        save_checkpoint(
            path, self.step, self.settings, self.model, self.average, self.optimizer, compact
        )
        return path

    def log(self, **facts: Any) -> None:
        """Append a line to the stage's log and print it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = {"step": self.step, "time": round(time.time()), **facts}
        with self._log_path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(" ".join(f"{k}={_short(v)}" for k, v in line.items() if k != "time"), flush=True)
        sys.stdout.flush()


class TimeLimit:
    """Tells when a run of some minutes has to cool down, and over how many steps."""

    #: Share of the minutes at the full rate, and what is kept back for the last checks.
    LEVEL, SPARE = 0.6, 0.03
    #: Reports by which the speed is told: the first steps wait for images to be rendered.
    _RECENT = 5

    def __init__(self, minutes: float) -> None:
        self._seconds = 60.0 * minutes
        self._reports: list[tuple[int, float]] = []
        self._started = time.monotonic()

    def steps_left(self, step: int) -> int | None:
        """Return how many steps of cooldown fit, once it is time for it; call it now and then."""
        now = time.monotonic()
        self._reports = [*self._reports[-self._RECENT :], (step, now)]
        first, began = self._reports[0]
        if now - self._started < self.LEVEL * self._seconds or step == first:
            return None
        left = self._seconds * (1.0 - self.SPARE) - (now - self._started)
        return max(1, int(left * (step - first) / (now - began)))


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def mean(values: Iterable[float]) -> float:
    """The mean; nan of nothing."""
    items = list(values)
    return sum(items) / len(items) if items else math.nan


class MeanLosses:
    """Means of losses over steps, added up where they are computed, so that no step waits."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._steps = 0

    def add(self, losses: Mapping[str, torch.Tensor]) -> None:
        """Count one step's losses."""
        self._steps += 1
        for name, value in losses.items():
            before = self._sums.get(name)
            self._sums[name] = value.clone() if before is None else before + value

    def take(self) -> dict[str, float]:
        """Return the means since the last time; raises FloatingPointError if one isn't finite."""
        means = {name: float(total) / self._steps for name, total in self._sums.items()}
        if not all(map(math.isfinite, means.values())):
            raise FloatingPointError(f"the mean losses of the last {self._steps} steps are {means}")
        self._sums, self._steps = {}, 0
        return means


def averaged_weights(path: Path) -> dict[str, torch.Tensor]:
    """The moving average that a checkpoint holds, ready for ``load_state_dict``.

    Raises FileNotFoundError when there is no checkpoint.
    """
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}: train that stage first")
    with safe_open(path, framework="pt") as file:
        return {
            key.removeprefix("average."): file.get_tensor(key).float()
            for key in file.keys()  # noqa: SIM118
            if key.startswith("average.")
        }
