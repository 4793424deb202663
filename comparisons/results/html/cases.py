"""The words that a method found best and worst, as pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from markupsafe import Markup
from PIL import Image
from scipy import ndimage

from wordlight.attribution.maps import AttributionMaps
from wordlight.attribution.pictures import overlay
from wordlight.attribution.viewer import Panel, Viewer
from wordlight.attribution.words import Word
from wordlight.backends.arrays_file import FileFormatError
from wordlight.comparisons.results.finished_run import HEADLINE, FinishedRun, MethodRow

#: How many of the best and of the worst are shown a method.
SHOWN = 3
#: Pixels of a picture's longer side, about: larger images are reduced to it.
_SIDE = 384

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Case:
    """One word in one image: the pictures are data URIs, whole files in the address itself."""

    sample: str
    prompt: str
    word: str
    iou: float
    image: str
    mask: str
    map: str
    #: Whether the image has so few pixels that they are shown as they are.
    few_pixels: bool
    #: Every word's map, beside the best other method's.
    viewer: Markup


@dataclass(frozen=True)
class Cases:
    """The cases of one method; ``missing`` says why there are no pictures, "" where there are."""

    row: MethodRow
    best: tuple[Case, ...] = ()
    worst: tuple[Case, ...] = ()
    missing: str = ""


def find_cases(run: FinishedRun) -> list[Cases]:
    """The best and worst headline words of every method that is no control, by IoU at its
    threshold; of equals the first.

    A method whose maps are damaged has no pictures, like one whose maps aren't kept.

    Raises ValueError for masks that are damaged, or don't fit their maps.
    """
    methods = [
        row for row in run.rows if row.family != "control" and not row.shuffled and not row.extra
    ]
    return [_of_method(run, row, [one for one in methods if one is not row]) for row in methods]


def _of_method(run: FinishedRun, row: MethodRow, others: Sequence[MethodRow]) -> Cases:
    own = run.scores.filter((pc.field("method") == row.name) & (pc.field("kind") == HEADLINE))
    # Sorted by image and word before, and the order of equals is kept.
    ranked = sorted(own.to_pylist(), key=lambda one: -one["value"])
    # Of few words each is shown once.
    best = ranked[: min(SHOWN, -(-len(ranked) // 2))]
    worst = ranked[len(best) :][-SHOWN:][::-1]
    if not ranked:
        return Cases(row, missing="It was scored on no headline word.")
    if any(not run.maps_path(row, one["sample"]).is_file() for one in (*best, *worst)):
        return Cases(row, missing="Its maps aren't kept in the run's folder.")
    try:
        return Cases(row, _pictured(run, row, others, best), _pictured(run, row, others, worst))
    except FileFormatError as error:
        return Cases(row, missing=f"Its maps can't be shown: {error}.")


def _pictured(
    run: FinishedRun,
    row: MethodRow,
    others: Sequence[MethodRow],
    scores: Sequence[dict[str, Any]],
) -> tuple[Case, ...]:
    cases = []
    for one in scores:
        path = run.maps_path(row, one["sample"])
        maps = AttributionMaps.load(path)
        word = run.words.slice(one["row"], 1).to_pylist()[0]
        mask = _read_mask(word["mask"], f"the mask of {one['word']!r} in {one['sample']}")
        if mask.shape != maps.image.shape[:2]:
            raise ValueError(
                f"{path} is of an image of {maps.image.shape[:2]}, and the mask of "
                f"{one['word']!r} of {mask.shape}"
            )
        word_map = maps[[slice(start, stop) for start, stop in word["spans"]]]
        heat = np.asarray(overlay(maps.image, word_map.normalised()))
        cases.append(
            Case(
                sample=one["sample"],
                prompt=word["prompt"],
                word=one["word"],
                iou=one["value"],
                image=_data_uri(maps.image),
                mask=_data_uri(_outside_dimmed(maps.image, mask)),
                map=_data_uri(_outlined(heat, mask)),
                few_pixels=max(mask.shape) < _SIDE // 2,
                viewer=_viewer(
                    {row.label: maps} | _best_of(run, others, one["sample"]), word_map.word, mask
                ),
            )
        )
    return tuple(cases)


def _best_of(
    run: FinishedRun, others: Sequence[MethodRow], sample: str
) -> dict[str, AttributionMaps]:
    """The maps of the first method that has some of an image, by its label; perhaps none."""
    for other in others:
        try:
            return {other.label: AttributionMaps.load(run.maps_path(other, sample))}
        except (OSError, FileFormatError):
            continue
    return {}


def _viewer(maps: dict[str, AttributionMaps], word: Word, mask: Mask) -> Markup:
    """Methods side by side, with the word pinned and its true mask outlined."""

    def inside(one: AttributionMaps) -> list[Word]:
        return [p for p in one.players if p.in_prompt and {*p.tokens} <= {*word.tokens}]

    panels = [
        Panel.of(one, label, masks=dict.fromkeys(inside(one), mask)) for label, one in maps.items()
    ]
    first = next(iter(maps.values()))
    pinned = [first.players.index(player) for player in inside(first)]
    return Viewer(panels, pinned=pinned).element(_SIDE)


def _read_mask(data: bytes, what: str) -> Mask:
    try:
        with Image.open(BytesIO(data), formats=["PNG"]) as picture:
            return np.asarray(picture.convert("1"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{what} is no PNG ({error})") from None


def _outside_dimmed(image: Pixels, mask: Mask) -> Pixels:
    # Hatched too: dark images have no room to be dimmed.
    grey = np.full_like(image, 128)
    stripes = (np.add.outer(*map(np.arange, mask.shape)) // max(1, mask.shape[0] // 32)) % 2 == 0
    grey[stripes] = 96
    return np.where(mask[..., None], image, (image * 0.2 + grey * 0.8).astype(np.uint8))


def _outlined(picture: Pixels, mask: Mask) -> Pixels:
    """With the mask's edge in white on black."""
    large = np.asarray(
        Image.fromarray(mask).resize((picture.shape[1], picture.shape[0])), dtype=bool
    )
    line = max(1, picture.shape[0] // 128)
    rim = large & ~ndimage.binary_erosion(large, iterations=line, border_value=0)
    dark = ndimage.binary_dilation(large, iterations=line) & ~large
    drawn = picture.copy()
    drawn[dark] = 0
    drawn[rim] = 255
    return drawn


def _data_uri(picture: Pixels) -> str:
    image = Image.fromarray(picture)
    if max(image.size) > _SIDE:
        smaller = max(image.size) / _SIDE
        image = image.resize(
            (round(image.width / smaller), round(image.height / smaller)), Image.Resampling.BOX
        )
    buffer = BytesIO()
    # Without loss where images are small: their few pixels are what is looked at.
    image.save(buffer, format="webp", lossless=max(picture.shape[:2]) <= _SIDE, quality=85)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
