"""Choices that a model leaves for drawing, and its defaults for them."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

#: Far beyond what any model draws with; more only overflows.
_MOST_GUIDANCE = 1e4


@dataclass(frozen=True)
class SamplingFacts:
    """The settings of ``Backend.sample`` and ``Backend.invert``.

    Attributes:
        steps, guidance_scale: the model's recommended settings.
        train_steps: the number of timesteps of its training, which is the most steps.
        height, width: its own size, in pixels.
        multiple: of how many pixels a side must be.
        sizes: heights and widths of the only images that it draws; any where there are none.
    """

    steps: int
    guidance_scale: float
    train_steps: int
    height: int
    width: int
    multiple: int = 8
    sizes: tuple[tuple[int, int], ...] = ()

    def steps_of(self, steps: int | None) -> int:
        """The number of steps of a request; raises ValueError for one that can't be."""
        if steps is None:
            return self.steps
        steps = whole_number("steps", steps)
        if not 1 <= steps <= self.train_steps:
            raise ValueError(f"steps must be 1 to {self.train_steps}, not {steps}")
        return steps

    def guidance_of(self, guidance_scale: float | None) -> float:
        """The guidance scale of a request; raises ValueError for one that can't be."""
        if guidance_scale is None:
            return self.guidance_scale
        if not isinstance(guidance_scale, Real):
            raise TypeError(f"guidance_scale must be a number, not {guidance_scale!r}")
        if not 0 <= guidance_scale <= _MOST_GUIDANCE:
            raise ValueError(
                f"guidance_scale must be 0 to {_MOST_GUIDANCE:g}, not {guidance_scale}"
            )
        return guidance_scale

    def size_of(self, height: int | None, width: int | None) -> tuple[int, int]:
        """Height and width of a request in pixels; raises ValueError for what can't be drawn."""
        chosen = (
            whole_number("height", self.height if height is None else height),
            whole_number("width", self.width if width is None else width),
        )
        for name, value in zip(("height", "width"), chosen, strict=True):
            if value < self.multiple or value % self.multiple:
                raise ValueError(
                    f"{name} must be a positive multiple of {self.multiple} pixels, not {value}"
                )
        if self.sizes and chosen not in self.sizes:
            there = ", ".join(f"{height} x {width}" for height, width in self.sizes)
            raise ValueError(
                f"the model draws images of {there} pixels (height x width) alone, not "
                f"{chosen[0]} x {chosen[1]}"
            )
        return chosen


@dataclass(frozen=True)
class DrawRequest:
    """A checked call of ``Backend.sample``: one image a seed; image k is of prompt
    ``k // images_per_prompt``. ``size`` is height and width in pixels."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    guidance_scale: float
    negative_prompt: str | None
    images_per_prompt: int
    size: tuple[int, int]

    def of_image(self, k: int) -> DrawRequest:
        """The request for one of the images alone."""
        prompt = self.prompts[k // self.images_per_prompt]
        return replace(self, prompts=(prompt,), seeds=(self.seeds[k],), images_per_prompt=1)


def whole_number(name: str, value: Any) -> int:
    """``value`` as an int; raises TypeError, which names it, for anything else."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r}") from None


#: What pipelines call the arguments of ``Backend.sample``.
_IN_PIPELINES = {
    "prompt": "prompts",
    "num_inference_steps": "steps",
    "num_images_per_prompt": "images_per_prompt",
    "guidance": "guidance_scale",
    "generator": "seed",
}


#: The arguments themselves.
_TAKEN = (*dict.fromkeys(_IN_PIPELINES.values()), "negative_prompt", "height", "width")


def refuse_others(others: Mapping[str, Any]) -> None:
    """Raise TypeError for an argument that ``sample`` doesn't take, with the right one."""
    for name, value in others.items():
        ours = _IN_PIPELINES.get(name)
        shown = repr(value) if isinstance(value, str | int | float) else "..."
        right = f"say {ours}={shown}" if ours else f"it takes {', '.join(_TAKEN)}"
        raise TypeError(f"sample takes no {name}: {right}")


def check_prompts(prompts: Sequence[str]) -> None:
    """Raises ValueError for no prompt at all, and for an empty one; TypeError for what is no
    text."""
    if not prompts:
        raise ValueError("no prompt was given")
    for prompt in prompts:
        if not isinstance(prompt, str):
            raise TypeError(f"a prompt is a text, not {prompt!r}")
    if any(not prompt.strip() for prompt in prompts):
        raise ValueError("the prompt is empty: there is no word to attribute to")


def pixels_of(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Values from 0 to 1 as uint8, rounded; beyond these they are cut off.

    Raises ValueError for NaN and infinite ones, which would be drawn as black.
    """
    if not np.isfinite(values).all():
        raise ValueError(
            "the model's decoder gave pixels that are no numbers (NaN or infinite): its weights "
            "are damaged, or it overflows in this precision (try dtype='float32')"
        )
    pixels: npt.NDArray[np.uint8] = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return pixels


def check_image(image: npt.NDArray[Any]) -> None:
    """Raises ValueError for anything but ``(height, width, 3)`` uint8."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"an image must be (height, width, 3) uint8, not {image.shape} {image.dtype}"
        )


def seeds_of(seed: int | Sequence[int], count: int) -> tuple[int, ...]:
    """One seed an image: counted up from a number, or as they were given."""
    if isinstance(seed, Sequence) and not isinstance(seed, str):
        seeds = tuple(whole_number("a seed", s) for s in seed)
    else:
        seeds = tuple(whole_number("a seed", seed) + k for k in range(count))
    if len(seeds) != count:
        raise ValueError(f"{len(seeds)} seeds for {count} images")
    if min(seeds) < 0 or max(seeds) >= 2**63:
        raise ValueError("a seed must be 0 or more, and less than 2**63")
    return seeds
