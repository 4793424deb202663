"""Files of a data set, which may be anything: they are read inside its root, and checked."""

from __future__ import annotations

import json
import warnings
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from wordlight.comparisons.datasets.dataset import DatasetError, is_text
from wordlight.comparisons.datasets.item import Mask

#: What an image may be; others have decoders that few look after.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")
#: What has 8 bits a channel, or fewer: Pillow cuts off what is above 255 in others.
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
#: In bytes; more is no prompt.
_LONGEST_PROMPT = 100_000


def inside(root: Path, name: str) -> Path:
    """The path ``name`` under ``root``.

    Raises DatasetError where it leaves the root: absolute, through ``..``, or by a symbolic link.
    """
    parts = PurePosixPath(name)
    windows = PureWindowsPath(name)
    if not name or "\0" in name or not is_text(name):
        raise DatasetError(f"{name!a} is no path")
    if parts.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise DatasetError(f"{name!r} leads out of {root}: paths must lie inside the data set")
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise DatasetError(f"{name!r} leads out of {root} by a symbolic link")
    return path


def read_text(path: Path, most: int = _LONGEST_PROMPT) -> str:
    """A text in UTF-8 of at most so many bytes, without the blanks around it.

    Raises DatasetError where it isn't one.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise DatasetError(f"{path} can't be read: {error.strerror}") from None
    if len(data) > most:
        raise DatasetError(f"{path} has more than {most} bytes: it is something else")
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise DatasetError(f"{path} is no text in UTF-8") from None


def read_json(path: Path) -> Any:
    """What a JSON file holds; raises DatasetError where it isn't one."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DatasetError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is no JSON, or was cut short: {error}") from None


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """An image as ``(height, width, 3)`` uint8; raises DatasetError where it can't be read."""
    image = _opened(path)
    if image.mode not in _EIGHT_BITS:
        raise DatasetError(f"{path} should have 8 bits a channel: it is {image.mode}")
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def read_alpha_mask(path: Path) -> Mask:
    """Where an image isn't wholly transparent; raises DatasetError where it has no alpha."""
    image = _opened(path)
    if "A" not in image.getbands() and "transparency" not in image.info:
        raise DatasetError(
            f"{path} has no alpha channel, in which the mask should be (it is {image.mode})"
        )
    return np.asarray(image.convert("RGBA").getchannel("A")) > 0


def read_mask(path: Path) -> Mask:
    """Where an image isn't black, or isn't wholly transparent if it has an alpha channel."""
    image = _opened(path)
    if "A" in image.getbands():
        return np.asarray(image.getchannel("A")) > 0
    if image.mode in _EIGHT_BITS[1:]:
        # Colours, where a palette has numbers for them.
        image = image.convert("RGB")
    values = np.asarray(image)
    mask: Mask = values > 0
    return mask if mask.ndim == 2 else np.logical_or.reduce(mask, axis=2)


def read_labels(path: Path) -> npt.NDArray[np.intp]:
    """The numbers of an image's pixels: indices of a palette, or grey values, ``(h, w)``."""
    image = _opened(path)
    if image.mode not in ("P", "L", "I", "I;16", "1"):
        raise DatasetError(
            f"{path} should be a palette or grey image of labels: it is {image.mode}"
        )
    return np.asarray(image).astype(np.intp)


def _opened(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # A decompression bomb is refused, and not only warned of.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=IMAGE_FORMATS) as image:
                image.load()
    except FileNotFoundError:
        raise DatasetError(f"there is no {path}") from None
    except Exception as error:
        # Decoders raise many kinds (SyntaxError, struct.error, ...) on bytes that are no image.
        raise DatasetError(f"{path} is no image that can be read: {error}") from None
    return image
