"""The sheet of pictures: each noun in each style, with its exact outline."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from wordlight.backends.things.nouns import NOUNS, STYLES

#: Made by training/things/make_pictures.py; whose pictures they are is said in NOTICE.md.
SHEET = Path(__file__).with_name("pictures.webp")
#: Side of one picture, in pixels.
TILE = 64


@cache
def _sheet() -> Image.Image:
    with Image.open(SHEET) as sheet:
        # Colours weighted by alpha, as they must be when they are reduced.
        return sheet.convert("RGBA").convert("RGBa")


@lru_cache(maxsize=8192)
def picture(noun: str, style: str, side: int, mirrored: bool = False) -> npt.NDArray[np.uint8]:
    """Return a noun's picture, as large as fits ``(side, side)``.

    Returns:
        ``(height, width, 4)`` uint8, without empty rows and columns: colours times alpha, and
        alpha.

    Raises:
        KeyError: an unknown noun or style.
    """
    row, column = _ROWS[noun], _COLUMNS[style]
    box = (TILE * column, TILE * row, TILE * (column + 1), TILE * (row + 1))
    tile = _sheet().crop(box)
    tile = tile.crop(tile.getchannel("a").getbbox())
    scale = side / max(tile.size)
    size = (max(1, round(tile.width * scale)), max(1, round(tile.height * scale)))
    pixels = np.array(tile.resize(size, Image.Resampling.BICUBIC))
    # Bicubic weights overshoot a little, and no colour is above its alpha.
    pixels[..., :3] = np.minimum(pixels[..., :3], pixels[..., 3:])
    return pixels[:, ::-1] if mirrored else pixels


_ROWS = {name: row for row, name in enumerate(NOUNS)}
_COLUMNS = {style: column for column, style in enumerate(STYLES)}
