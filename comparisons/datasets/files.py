"""Files of a data set, which may be anything: they are read inside its root, and checked."""

from __future__ import annotations

import errno
import warnings
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from scipy import ndimage

from wordlight.backends.regular_files import open_regular, read_json_file, read_regular
from wordlight.comparisons.datasets.dataset import DatasetError, is_text
from wordlight.comparisons.datasets.item import Mask

#: What an image may be; others have decoders that few look after.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")
#: What has 8 bits a channel, or fewer: Pillow cuts off what is above 255 in others.
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
#: More is larger than photographs are, and takes gigabytes once it is unpacked.
_MOST_PIXELS = 2**25
#: In bytes; more is no prompt.
_LONGEST_PROMPT = 100_000
#: In bytes; COCO's annotations of 118 000 photographs have half of it.
_LONGEST_JSON = 2**30
#: Where a mask's edge is soft, levels up to this share from black or from its brightest are those.
_SOFT = 0.2
#: How thick an edge may be, in pixels or as a share of the image's shorter side; what is thicker is
#: a region of a third value.
_THICKEST_EDGE = (3.0, 0.02)
#: How far levels of one region may lie apart where they have 8 bits, which JPEG may have been over.
_ONE_LEVEL = 0.01
#: Of so many of the most common levels it is looked whether they are regions of their own.
_MOST_LEVELS = 8
#: Number and colour of what is nobody's in VOC's palette images.
_VOID, _VOID_COLOUR = 255, (224, 224, 192)


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
    try:
        leads_out = not path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        raise DatasetError(f"{path} can't be read: it is a link that leads to itself") from None
    if leads_out:
        raise DatasetError(f"{name!r} leads out of {root} by a symbolic link")
    return path


def read_text(path: Path, most: int = _LONGEST_PROMPT) -> str:
    """Return a text in UTF-8 of at most ``most`` bytes, without the blanks around it.

    Raises DatasetError where it isn't one.
    """
    try:
        data = read_regular(path, most)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise DatasetError(f"{path} has more than {most} bytes: it is something else") from None
        raise DatasetError(f"{path} can't be read: {error.strerror}") from None
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise DatasetError(f"{path} is no text in UTF-8") from None


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raises DatasetError where it isn't one."""
    try:
        return read_json_file(path, _LONGEST_JSON)
    except OSError as error:
        raise DatasetError(f"{path} can't be read: {error.strerror}") from None
    except ValueError as error:
        raise DatasetError(f"{path} is no JSON, or was cut short: {error}") from None


def check_plain(path: Path) -> Path:
    """The path itself; raises DatasetError where it is no plain file that can be opened, so that
    no library waits for one."""
    try:
        open_regular(path).close()
    except OSError as error:
        raise DatasetError(f"{path} can't be read: {error.strerror}") from None
    return path


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """An image as ``(height, width, 3)`` uint8, turned as its EXIF orientation says; raises
    DatasetError where it can't be read."""
    image = _opened(path)
    if image.mode not in _EIGHT_BITS:
        raise DatasetError(f"{path} should have 8 bits a channel: it is {image.mode}")
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def read_alpha_mask(path: Path) -> Mask:
    """Return a mask, true where an image isn't wholly transparent; raises DatasetError where it has
    no alpha, or has a picture behind one that is opaque everywhere."""
    image = _opened(path)
    alpha = _alpha_of(image)
    if alpha is None:
        raise DatasetError(
            f"{path} has no alpha channel, in which the mask should be (it is {image.mode})"
        )
    if alpha.min() == 255 and np.ptp(np.asarray(image.convert("RGB")), axis=(0, 1)).any():
        raise DatasetError(
            f"{path} is opaque everywhere, and the mask should be in its alpha channel"
        )
    return alpha > 0


def read_mask(path: Path) -> Mask:
    """Return a mask, true where an image isn't transparent, or isn't black.

    That is its alpha channel, unless it is the same everywhere; of a palette without grey colours
    where its number isn't 0; else where it is brighter than half way between its darkest and its
    brightest, so that soft edges and JPEG's ringing are cut in the middle.

    Raises DatasetError where an image can't be read, has several frames, or can be read as two
    masks: with regions between black and white, of several colours or of several numbers, with
    white on black behind a transparency that shows other places, or a palette whose number 0 isn't
    black while another is.
    """
    image = _opened(path, frames=1)
    alpha = _alpha_of(image)
    if alpha is not None and np.ptp(alpha):
        mask = _halved(path, alpha)
        _check_no_mask_inside(path, np.asarray(image.convert("RGB")), mask)
        return mask
    if image.mode == "P" and (indices := _coloured_indices(path, image)) is not None:
        return indices > 0
    if image.mode in _EIGHT_BITS[1:]:
        image = image.convert("RGB")
    values = np.asarray(image.convert("L") if image.mode == "1" else image)
    if values.ndim == 2:
        return _halved(path, values)
    mask = _halved(path, values.max(axis=2))
    for region in (mask, ~mask):
        _check_one_colour(path, values, region)
    return mask


def _check_no_mask_inside(path: Path, colours: npt.NDArray[np.uint8], shown: Mask) -> None:
    """Raises DatasetError where what isn't transparent is itself white on black."""
    levels, greys = colours.max(axis=2), not np.ptp(colours, axis=2)[shown].any()
    black, white = shown & (levels < _SOFT * 255), shown & (levels > (1 - _SOFT) * 255)
    if greys and all(map(_is_thick, (black, white))) and not _is_thick(shown & ~black & ~white):
        raise DatasetError(
            f"{path} can be read as two masks: by its transparency, and by the white and black "
            "that isn't transparent; save one of them alone"
        )


def _check_one_colour(path: Path, colours: npt.NDArray[np.uint8], region: Mask) -> None:
    """Raises DatasetError where a region, but for its edges, has several colours."""
    if not region.any():
        return
    apart = np.abs(colours - np.median(colours[region], axis=0)).max(axis=2)
    if _is_thick(region & (apart > _SOFT * max(1, int(np.ptp(colours))))):
        raise DatasetError(
            f"{path} has regions of several colours: a mask is of one thing, in white on black"
        )


def _alpha_of(image: Image.Image) -> npt.NDArray[np.uint8] | None:
    """The alpha channel, of a transparent colour too; None where there is none."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return None
    return np.asarray(image.convert("RGBA").getchannel("A"))


def _coloured_indices(path: Path, image: Image.Image) -> npt.NDArray[np.uint8] | None:
    """The numbers of a palette image's pixels, where they and not its colours say what is the
    object; None where its colours do: they are shades of grey, or black is what stands behind."""
    indices = np.asarray(image)
    used = np.unique(indices)
    colours = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    if used[-1] >= len(colours):
        raise DatasetError(f"{path} has the number {used[-1]}, which its palette lacks")
    colours = colours[used]
    if len(used) > 1 and not np.ptp(colours, axis=0).any():
        raise DatasetError(
            f"{path} can be read as two masks: its palette shows all of its numbers in one colour; "
            "save it in black and white"
        )
    if not np.ptp(colours, axis=1).any():
        return None
    black = ~colours.any(axis=1)
    if black.any() and used[0] == 0 and not black[0]:
        raise DatasetError(
            f"{path} can be read as two masks: its palette's number 0 isn't black, and another is; "
            "save it in black and white"
        )
    if not black.any() and used[0] != 0:
        raise DatasetError(
            f"{path} shows no ground: its palette image has neither the number 0 nor black"
        )
    # Where black stands behind, every other number is of the object, and 0 is black or unused.
    if black.any():
        indices = np.where(black[np.searchsorted(used, indices)], 0, indices).astype(np.uint8)
    main = int(np.bincount(indices[indices > 0]).argmax()) if indices.any() else 0
    if main != _VOID and used[-1] == _VOID and tuple(colours[-1]) == _VOID_COLOUR:
        indices = np.where(indices == _VOID, 0, indices).astype(np.uint8)
    if _is_thick((indices > 0) & (indices != main)):
        raise DatasetError(
            f"{path} has more than two values: its palette image shows several things; a mask is "
            "of one, in white on black"
        )
    return indices


def _halved(path: Path, levels: npt.NDArray[Any]) -> Mask:
    """Return a mask, true where levels lie above the middle of their range, of which 0 is a
    part."""
    if not np.isfinite(levels).all():
        raise DatasetError(f"{path} has pixels that are no numbers")
    # Not whole numbers: the brightest of floats may be below 1.
    low, high = float(levels.min()), float(levels.max())
    if low < 0 and high <= 0:
        raise DatasetError(f"{path} has no level above 0, which is a mask's black, but {low:g}")
    if low == high:
        low = min(low, 0.0)
    if high <= low:
        return np.zeros(levels.shape, bool)
    share = (levels.astype(np.float32) - low) / (high - low)
    if _is_thick((share > _SOFT) & (share < 1 - _SOFT)):
        raise DatasetError(
            f"{path} has more than two values: a region that is neither black nor its brightest; "
            "a mask is black where the object isn't"
        )
    mask: Mask = share > 0.5
    one_level = _ONE_LEVEL if levels.dtype.kind == "f" or levels.itemsize == 1 else 0.0
    found, counts = np.unique(share[mask], return_counts=True)
    common = found[np.argsort(-counts)[:_MOST_LEVELS]]
    if any(_is_thick(share == one) for one in common if abs(one - common[0]) > one_level):
        raise DatasetError(
            f"{path} has more than two values: regions of several numbers; a mask is of one thing, "
            "in white on black"
        )
    return mask


def _is_thick(between: npt.NDArray[np.bool_]) -> bool:
    """Return whether pixels are more than an edge."""
    least, of_side = _THICKEST_EDGE
    thickest = max(least, of_side * min(between.shape))
    # The distance to the nearest pixel that isn't between: half of what is thick.
    return bool(between.any()) and float(ndimage.distance_transform_edt(between).max()) > thickest


def read_labels(path: Path) -> npt.NDArray[np.int32]:
    """The numbers of an image's pixels: indices of a palette, or grey values, ``(h, w)``."""
    image = _opened(path)
    if image.mode not in ("P", "L", "I", "I;16", "1"):
        raise DatasetError(
            f"{path} should be a palette or grey image of labels: it is {image.mode}"
        )
    return np.asarray(image).astype(np.int32)


def _opened(path: Path, frames: int | None = None) -> Image.Image:
    """An image as it stands upright; raises DatasetError for one that can't be read, is too large,
    or has more frames or pages than are wanted (any number for None: the first is taken)."""
    try:
        with warnings.catch_warnings():
            # A decompression bomb is refused, and not only warned of.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with open_regular(path) as file, Image.open(file, formats=IMAGE_FORMATS) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise DatasetError(
                        f"{path} is {image.height}x{image.width} (height x width), more than "
                        f"{_MOST_PIXELS} pixels: make it smaller"
                    )
                if _is_misread(image):
                    raise DatasetError(
                        f"{path} is a BMP of 8 bits and two colours, which Pillow reads as one of "
                        "1 bit: save it as PNG"
                    )
                found = getattr(image, "n_frames", 1)
                if frames is not None and found > frames:
                    raise DatasetError(f"{path} has {found} frames or pages: save one alone")
                image.load()
                return ImageOps.exif_transpose(image)
    except FileNotFoundError:
        raise DatasetError(f"there is no {path}") from None
    except DatasetError:
        raise
    except Exception as error:
        # Decoders raise many kinds (SyntaxError, struct.error, ...) on bytes that are no image.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DatasetError(f"{path} is no image that can be read: {reason}") from None


def _is_misread(image: Image.Image) -> bool:
    """Return whether Pillow takes the bytes of a BMP for bits."""
    if image.format != "BMP" or image.mode != "1":
        return False
    stride = int(image.tile[0].args[1])  # type: ignore[attr-defined]
    return stride > (image.width + 31) // 32 * 4
