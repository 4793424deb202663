"""Maps as pictures: a heat map laid over the image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image

_COLOURS = "inferno"
#: Small images are enlarged to at least this many pixels a side, so that a person sees something.
_LEAST_SIDE = 384


def overlay(
    image: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32], opacity: float = 0.65
) -> Image.Image:
    """The image in grey with ``heat`` (0..1, the image's size) laid over it in colour.

    Small images are enlarged. Raises ValueError for sizes that differ, or an opacity outside 0..1.
    """
    if image.shape[:2] != heat.shape:
        raise ValueError(f"a map of {heat.shape} doesn't fit an image of {image.shape[:2]}")
    if not 0.0 <= opacity <= 1.0:
        raise ValueError(f"opacity lies between 0 and 1, not at {opacity}")
    grey = np.asarray(Image.fromarray(image).convert("L").convert("RGB"), float)
    colour = colormaps[_COLOURS](heat)[..., :3] * 255.0
    blended = (1 - opacity) * grey + opacity * colour
    return enlarge(np.rint(blended).astype(np.uint8))


def enlarge(image: npt.NDArray[np.uint8]) -> Image.Image:
    """A picture of at least 384 pixels a side, by whole factors, without smoothing."""
    times = max(1, -(-_LEAST_SIDE // min(image.shape[:2])))
    size = (image.shape[1] * times, image.shape[0] * times)
    return Image.fromarray(image).resize(size, Image.Resampling.NEAREST)
