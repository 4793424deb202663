"""Maps step by step: how a method's answer changes while the image is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr
from PIL import Image, ImageDraw

from wordlight.attribution.attributor import TextImageAttributor
from wordlight.attribution.maps import AttributionMaps, MapKey, Provenance
from wordlight.attribution.pictures import overlay
from wordlight.attribution.words import WordKey
from wordlight.backends.progress_bar import ProgressBar
from wordlight.backends.trajectory import Trajectory


def by_step(
    attributor: TextImageAttributor,
    trajectory: Trajectory,
    words: Sequence[WordKey] | None = None,
    *,
    show_progress: bool = False,
) -> AttributionMaps:
    """A method's maps at each of its steps, kept apart along an axis ``step``.

    The method is asked about one step at a time, which costs as much as about all at once. A word's
    map is then the plain mean of its steps.

    Raises ValueError for a method whose answer isn't made step by step.
    """
    steps = trajectory.at_steps(attributor.steps)
    size = attributor.size_of(trajectory, words)
    if attributor.cost(replace(size, steps=1)) == attributor.cost(replace(size, steps=2)):
        raise ValueError(f"{attributor.name} doesn't look at single steps: there is no film of it")
    each = [
        attributor.attribute(trajectory, words, steps=(step,))
        for step in ProgressBar(steps, unit="steps", disable=not show_progress)
    ]
    parts = [
        one.data.isel(step=0, drop=True) if "step" in one.data.dims else one.data for one in each
    ]
    data = xr.concat(parts, "step").assign_coords(step=list(steps))
    first = each[0]
    return AttributionMaps(
        data.transpose("word", "step", ...),
        first.players,
        first.tokens,
        first.image,
        merge=first.merge,
        signed=first.signed,
        provenance=_together([one.provenance for one in each], list(steps)),
    )


def _together(each: Sequence[Provenance], steps: list[int]) -> Provenance:
    peaks = [one.peak_bytes for one in each if one.peak_bytes is not None]
    return replace(
        each[0],
        settings={**each[0].settings, "steps": steps, "steps_apart": True},
        forward=sum(one.forward for one in each),
        jvp=sum(one.jvp for one in each),
        vjp=sum(one.vjp for one in each),
        forward_equivalents=sum(one.forward_equivalents for one in each),
        seconds=sum(one.seconds for one in each),
        peak_bytes=max(peaks, default=None),
    )


def frames(maps: AttributionMaps, key: MapKey, opacity: float = 0.65) -> list[Image.Image]:
    """One overlay a step of a word's map, all on one scale, with the step's number; of a video one
    overlay a frame.

    Raises ValueError for maps whose steps weren't kept apart, KeyError for a word without a map.
    """
    if maps.is_video:
        word_map = maps[key]
        return [word_map.overlay(opacity, frame=frame) for frame in range(len(maps.image))]
    if "step" not in maps.data.dims:
        raise ValueError(
            "the maps' steps weren't kept apart: use wordlight.attribution.film.by_step, or "
            "DAAM(..., keep=['step'])"
        )
    steps = maps.data.coords["step"].values.tolist()
    each = [maps.select(step=step)[key] for step in steps]
    heats = np.stack([one.resized() for one in each])
    if maps.signed:
        heats = np.maximum(heats, 0)
    if all(one.blank for one in each):
        heats = np.zeros_like(heats)
    low, high = float(heats.min()), float(heats.max())
    shares = (heats - low) / (high - low if high > low else 1)
    return [
        _numbered(overlay(maps.image, share.astype(np.float32), opacity), f"step {step}")
        for step, share in zip(steps, shares, strict=True)
    ]


def save_film(
    maps: AttributionMaps, key: MapKey, path: str | Path, *, milliseconds: int = 180
) -> Path:
    """Write a word's map step by step, of a video frame by frame, as an animated GIF, and return
    its path.

    Raises as ``frames`` does.
    """
    first, *rest = frames(maps, key)
    path = Path(path)
    first.save(path, save_all=True, append_images=rest, duration=milliseconds, loop=0)
    return path


def _numbered(picture: Image.Image, text: str) -> Image.Image:
    draw = ImageDraw.Draw(picture)
    size = max(12, picture.height // 24)
    place = (size // 2, picture.height - size // 2)
    draw.text(
        place, text, fill="white", stroke_width=2, stroke_fill="black", anchor="ls", font_size=size
    )
    return picture
