"""A contact sheet of a data set: its images with the masks of their words, to be looked through."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image
from scipy import ndimage

from wordlight.comparisons.datasets.dataset import AnnotatedImage, Annotation
from wordlight.comparisons.results.figures import figure_png

#: Items that a sheet shows: more are too small, or too many pages.
MOST_SHOWN = 60
#: Shares of an image above and below which a mask is more likely a mistake than an object.
NEARLY_ALL, NEARLY_NOTHING = 0.95, 0.0005
#: The same of ground and stuff, such as the sky.
NEARLY_EVERYTHING = 0.999

_COLUMNS = 6
#: A mask of more than this share of an image is outlined alone: its tint would hide the image.
_TINTED = 0.5
_TILE = 2.0  # inches
_PIXELS = 256
_COLOURS = ((0, 114, 178), (230, 159, 0), (204, 121, 167), (86, 180, 233), (0, 158, 115))


def word_of(prompt: str, one: Annotation) -> str:
    """The words of a prompt that a mask is of, as a person reads them."""
    places = one.place if isinstance(one.place, list) else [one.place]
    texts = [prompt[at] if isinstance(at, slice) else at[0] if isinstance(at, tuple) else at
             for at in places]  # fmt: skip
    return " & ".join(dict.fromkeys(map(str, texts)))


def doubtful_masks(item: AnnotatedImage) -> list[str]:
    """Return remarks on an item's masks, a line each: nearly all or nearly nothing of the image.

    Ground and stuff, such as the sky, may be nearly all of an image.
    """
    said = []
    for one in item.annotations or ():
        share = float(one.mask.mean())
        what = f"{item.sample}: the mask of {word_of(item.prompt, one)!r} covers"
        if share > (NEARLY_ALL if one.category == "object" else NEARLY_EVERYTHING):
            said.append(f"{what} {share:.1%} of the image: is it the background, or inverted?")
        elif share < NEARLY_NOTHING:
            pixels = int(one.mask.sum())
            said.append(f"{what} {pixels} of {one.mask.size} pixels: was it lost in export?")
    return said


@dataclass(frozen=True)
class _Tile:
    """An item as it is shown; the words with their colours and shares."""

    title: str
    picture: npt.NDArray[np.uint8]
    words: tuple[tuple[str, str], ...]


class ContactSheet:
    """The first items of a data set that have an image, small, with their masks.

    Each mask is tinted and outlined in a colour, which the word below has too, with the share of
    the image that it covers.
    """

    def __init__(self) -> None:
        self._tiles: list[_Tile] = []

    def add(self, item: AnnotatedImage) -> None:
        """Put an item on the sheet, if it has an image and there is room."""
        if item.image is not None and len(self._tiles) < MOST_SHOWN:
            self._tiles.append(_tile_of(item, item.image))

    def png(self) -> bytes:
        """Draw the sheet; raises ValueError where no item had an image."""
        if not self._tiles:
            raise ValueError("there is no image to show: the data set has prompts alone")
        columns = min(_COLUMNS, len(self._tiles))
        lines = math.ceil(len(self._tiles) / columns)
        size = _TILE * columns, (_TILE + 0.9) * lines
        figure = Figure(figsize=size, dpi=120, layout="constrained")
        places = figure.subplots(lines, columns, squeeze=False).ravel()
        for place in places:
            place.set_axis_off()
        for place, tile in zip(places, self._tiles, strict=False):
            _draw(place, tile)
        return figure_png(figure)


def _tile_of(item: AnnotatedImage, image: npt.NDArray[np.uint8]) -> _Tile:
    picture = _small(image, Image.Resampling.LANCZOS).astype(float)
    words = []
    for number, together in enumerate(_by_mask(item.annotations or ())):
        rgb = _COLOURS[number % len(_COLOURS)]
        colour = np.array(rgb, float)
        whole = together[0].mask
        mask = _small(whole.astype(np.uint8) * 255, Image.Resampling.BOX) >= 128
        if whole.mean() < _TINTED:
            picture[mask] = 0.6 * picture[mask] + 0.4 * colour
        picture[mask & ~ndimage.binary_erosion(mask, iterations=2)] = colour
        names = ", ".join(word_of(item.prompt, one) for one in together)
        name = textwrap.shorten(names, 34, placeholder="...")
        words.append((f"{name} {whole.mean():.1%}", "#{:02x}{:02x}{:02x}".format(*rgb)))
    title = "\n".join([item.sample[:34], *textwrap.wrap(item.prompt, 38)[:2]])
    return _Tile(title, picture.round().astype(np.uint8), tuple(words))


def _by_mask(annotations: Sequence[Annotation]) -> list[list[Annotation]]:
    """Words of the same mask together: those of a noun phrase."""
    found: dict[bytes, list[Annotation]] = {}
    for one in annotations:
        found.setdefault(np.packbits(one.mask).tobytes(), []).append(one)
    return list(found.values())


def _draw(place: Axes, tile: _Tile) -> None:
    place.imshow(tile.picture)
    # Prompts are of others: a `$` begins no formula.
    place.set_title(tile.title, fontsize=6, parse_math=False)
    if not tile.words:
        return
    legend = place.legend(
        handles=[Patch(color=colour, label=text) for text, colour in tile.words],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.01),
        fontsize=6,
        frameon=False,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _small(array: npt.NDArray[np.uint8], how: Image.Resampling) -> npt.NDArray[np.uint8]:
    """At most ``_PIXELS`` wide and high."""
    height, width = array.shape[:2]
    scale = min(1.0, _PIXELS / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(array).resize(size, how))
