"""Resizing of maps: one bicubic kernel for every framework, and averaging down."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

#: PyTorch's constant of the cubic convolution kernel; JAX's own resize uses -0.5.
_A = -0.75

FloatArray = npt.NDArray[np.floating[Any]]


@lru_cache(maxsize=256)
def bicubic_matrix(source: int, target: int) -> npt.NDArray[np.float64]:
    """The ``(target, source)`` matrix that resizes one axis.

    As ``torch.nn.functional.interpolate(mode="bicubic", align_corners=False)``: pixel centres,
    no smoothing when shrinking, edges repeated.
    """
    if source < 1 or target < 1:
        raise ValueError(f"sizes must be 1 or more, not {source} and {target}")
    centres = (np.arange(target) + 0.5) * source / target - 0.5
    first = np.floor(centres).astype(int)
    matrix = np.zeros((target, source))
    for tap in range(-1, 3):
        places = first + tap
        weights = _cubic(np.abs(centres - places))
        np.add.at(matrix, (np.arange(target), places.clip(0, source - 1)), weights)
    matrix.setflags(write=False)
    return matrix


def _cubic(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    d = distance
    near = (_A + 2) * d**3 - (_A + 3) * d**2 + 1
    far = _A * d**3 - 5 * _A * d**2 + 8 * _A * d - 4 * _A
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def resize(maps: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Bicubic resizing of the last two axes ``(..., y, x)`` to ``size``, in float64 inside."""
    height, width = maps.shape[-2:]
    if (height, width) == size:
        return maps
    down = bicubic_matrix(height, size[0])
    across = bicubic_matrix(width, size[1])
    return (down @ maps.astype(np.float64) @ across.T).astype(maps.dtype)


def resize_places(maps: FloatArray, size: tuple[int, ...]) -> FloatArray:
    """Bring maps ``([frames,] y, x)`` to ``size``, ``([frames,] height, width)``: bicubic within a
    frame, and a frame of ``size`` has the map of the frame that it was decoded from."""
    within = resize(maps, (size[-2], size[-1]))
    return within if len(size) == 2 else within[list(frames_behind(len(maps), size[0]))]


def frames_behind(n_latent: int, n_frames: int) -> tuple[int, ...]:
    """Return the latent frame that each frame of a video is decoded from.

    Where the first latent frame can be one frame and every other one equally many (Wan, LTX), it
    is so; else each has an equal part of the video.
    """
    each, rest = divmod(n_frames - 1, max(n_latent - 1, 1))
    if n_latent > 1 and each and not rest:
        return tuple(-(-frame // each) for frame in range(n_frames))
    return tuple(frame * n_latent // n_frames for frame in range(n_frames))


def average_down(maps: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Mean over the pixels that each target pixel covers, for the last two axes.

    Raises ValueError where ``size`` does not divide the maps' size.
    """
    *lead, height, width = maps.shape
    if height % size[0] or width % size[1]:
        raise ValueError(f"{size} does not divide {(height, width)}")
    split = maps.reshape(*lead, size[0], height // size[0], size[1], width // size[1])
    averaged: FloatArray = split.mean(axis=(-3, -1))
    return averaged
