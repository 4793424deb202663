"""Arrays and pictures as text that a page can hold."""

from __future__ import annotations

import base64
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

#: Images of at most so many pixels a side are kept without loss: single pixels can be seen.
_LOSSLESS = 256
#: More levels than 8 bits has are kept while the quantised maps have at most so many bytes.
_FINE = 2_000_000


def pack_maps(maps: npt.NDArray[np.floating[Any]], *, bits: int | None = None) -> dict[str, Any]:
    """Quantise maps ``(..., y, x)``, each between its own least and greatest value, and deflate.

    Args:
        maps: finite values.
        bits: 8 or 16; where None, 16 unless that is a lot of data.

    Returns:
        ``shape``; ``bits``; ``range``, base64 of float32 pairs, one a map; and ``levels``, base64
        of deflated differences along ``x``, for 16 bits all low bytes and then all high ones.
    """
    if bits is None:
        bits = 16 if maps.size * 2 <= _FINE else 8
    low, high = maps.min((-2, -1), keepdims=True), maps.max((-2, -1), keepdims=True)
    span = np.where(high > low, high - low, 1)
    kind = np.uint16 if bits == 16 else np.uint8
    levels = np.rint((maps - low) / span * (2**bits - 1)).astype(kind)
    steps = np.diff(levels, axis=-1, prepend=kind(0)).ravel()
    planes = [steps & 0xFF, steps >> 8] if bits == 16 else [steps]
    ranges = np.stack([low.ravel(), high.ravel()], axis=1).astype("<f4")
    return {
        "shape": list(maps.shape),
        "bits": bits,
        "range": _base64(ranges.tobytes()),
        "levels": _deflated(b"".join(plane.astype(np.uint8).tobytes() for plane in planes)),
    }


def pack_mask(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """A mask ``(y, x)`` as its bits, row after row without a gap."""
    return {"shape": list(mask.shape), "bits": _deflated(np.packbits(mask).tobytes())}


def data_uri(image: npt.NDArray[np.uint8], longest: int | None = None) -> str:
    """An image ``(y, x, 3)`` as a data URI, reduced where a side has more than ``longest`` pixels.

    Small images are kept without loss.
    """
    picture = Image.fromarray(image)
    if longest is not None:
        picture.thumbnail((longest, longest), Image.Resampling.BOX)
    buffer = BytesIO()
    if max(picture.size) <= _LOSSLESS:
        picture.save(buffer, format="png", optimize=True)
        kind = "png"
    else:
        picture.save(buffer, format="webp", quality=88)
        kind = "webp"
    return f"data:image/{kind};base64,{_base64(buffer.getvalue())}"


def _deflated(data: bytes) -> str:
    return _base64(zlib.compress(data, 9))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
