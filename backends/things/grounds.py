"""Grounds drawn from random numbers: plain, graded and textured."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float64]
Noise = npt.NDArray[np.float64]


def draw_ground(name: str, size: int, rng: np.random.Generator) -> Image:
    """Return a ground, ``(size, size, 3)``, 0 to 255.

    Raises KeyError for an unknown name.
    """
    return np.clip(_GROUNDS[name](size, rng), 0.0, 255.0)


def noise(size: int, cells_y: int, cells_x: int, rng: np.random.Generator) -> Noise:
    """Return smooth noise, ``(size, size)``, -1 to 1, of ``cells_y`` by ``cells_x`` cells."""
    values = rng.uniform(-1.0, 1.0, (cells_y + 1, cells_x + 1))
    return _between(cells_y, size) @ values @ _between(cells_x, size).T


def _between(cells: int, size: int) -> npt.NDArray[np.float64]:
    """Return the weights, ``(size, cells + 1)``, that interpolate linearly between cells."""
    places = (np.arange(size) + 0.5) / size * cells
    return np.clip(1.0 - np.abs(places[:, None] - np.arange(cells + 1)), 0.0, 1.0)


def _rows(size: int) -> Noise:
    return ((np.arange(size) + 0.5) / size)[:, None] * np.ones(size)


def _graded(top: tuple[int, int, int], bottom: tuple[int, int, int], size: int) -> Image:
    share = _rows(size)[..., None]
    return np.array(top) * (1.0 - share) + np.array(bottom) * share


def _plain(grey: int) -> Callable[[int, np.random.Generator], Image]:
    def draw(size: int, rng: np.random.Generator) -> Image:
        return np.full((size, size, 3), grey + rng.uniform(-5.0, 5.0))

    return draw


def _sky(size: int, rng: np.random.Generator) -> Image:
    image = _graded((95, 165, 235), (190, 222, 248), size)
    cloud = np.clip(noise(size, 5, 3, rng) * 1.6 - 0.5, 0.0, 0.8)[..., None]
    return image * (1.0 - cloud) + 250.0 * cloud


def _night(size: int, rng: np.random.Generator) -> Image:
    image = _graded((8, 10, 38), (38, 34, 80), size)
    ys, xs = rng.integers(size, size=(2, 18))
    image[ys, xs] += rng.uniform(60.0, 190.0, (18, 1))
    return image


def _grass(size: int, rng: np.random.Generator) -> Image:
    blades = noise(size, 10, size // 2, rng)[..., None]
    patches = noise(size, 4, 4, rng)[..., None]
    return np.array([92, 150, 62]) + blades * [26, 30, 20] + patches * [14, 14, 8]


def _sand(size: int, rng: np.random.Generator) -> Image:
    grains = rng.normal(0.0, 6.0, (size, size, 1))
    dunes = noise(size, 6, 2, rng)[..., None]
    return np.array([226, 200, 150]) + grains + dunes * [12, 12, 14]


def _water(size: int, rng: np.random.Generator) -> Image:
    image = _graded((48, 128, 178), (22, 86, 146), size)
    waves = noise(size, 16, 4, rng)[..., None]
    return image + waves * [22, 28, 28]


def _bricks(size: int, rng: np.random.Generator) -> Image:
    course, brick = 8, 16
    shift_y, shift_x = rng.integers(course), rng.integers(brick)
    ys, xs = np.arange(size)[:, None] + shift_y, np.arange(size)[None, :] + shift_x
    row = ys // course
    places = xs + row % 2 * (brick // 2)
    mortar = (ys % course == 0) | (places % brick == 0)
    shades = rng.uniform(-16.0, 16.0, (row.max() + 1, places.max() // brick + 1))
    image = np.array([158, 84, 66]) + shades[row, places // brick][..., None]
    return np.where(mortar[..., None], np.array([196, 186, 176.0]), image)


_GROUNDS: dict[str, Callable[[int, np.random.Generator], Image]] = {
    "white": _plain(244),
    "gray": _plain(150),
    "sky": _sky,
    "night": _night,
    "grass": _grass,
    "sand": _sand,
    "water": _water,
    "bricks": _bricks,
}
