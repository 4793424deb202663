"""Finds the coloured shapes in an image, without a prompt: palette and outline, no learning.

Works on what the renderer draws and on what the model draws, whose edges are soft and whose
colours are a little off. Validated against the renderer's exact masks (see the tests).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wordlight.backends.prompts import FoundScene, Mask
from wordlight.backends.sampling import check_image
from wordlight.backends.scenes.grammar import COLOURS, GROUNDS, SHAPES, Group, Scene
from wordlight.backends.scenes.render import signed_distance

#: Goes up with every change of the masks that are found: a run knows which ones it was judged by.
MASKS_VERSION = 2
#: Fewest pixels of an object; the smallest that is ever rendered has 40.
MIN_AREA = 16
#: A shape that fits no outline this well (intersection over union) is called unclear.
MIN_FIT = 0.6
#: A second colour within one connected blob counts from this share of its pixels on.
_SECOND_COLOUR = 0.12
#: Two colours of a blob are two objects where they are this far apart, as a share of how far they
#: are in the palette: 0.5 and more where two were drawn, 0.13 and less in one of a blended colour.
_APART = 0.3
#: An object's own colour is that of its pixels from this quantile on, by their share of it.
_INNER = 0.7

Pixels = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FoundObject:
    """A coloured shape in an image: ``shape`` is None where no outline fits well."""

    colour: str
    shape: str | None
    fit: float
    mask: Mask
    y: float
    x: float


@dataclass(frozen=True)
class Segmentation(FoundScene):
    """The shapes of an image."""

    objects: tuple[FoundObject, ...]

    def members(self, scene: Scene, group: Group) -> list[FoundObject]:
        """The objects that a noun phrase means.

        They are told by colour; where two phrases of the prompt share it, by shape as well. So an
        object that was drawn badly is still the one that its phrase is about.
        """
        alone = sum(g.colour == group.colour for g in scene.groups) == 1
        return [
            o
            for o in self.objects
            if o.colour == group.colour and (alone or o.shape == group.shape)
        ]


def segment(image: npt.NDArray[np.uint8]) -> Segmentation:
    """Find the objects of an image of ``(height, width, 3)`` uint8.

    Raises ValueError for another shape or type.
    """
    check_image(image)
    pixels = image.astype(np.float64)
    ground, ground_colour = _find_ground(pixels)
    palette = np.array([ground_colour, *COLOURS.values()])
    nearest = _distances(pixels, palette).argmin(-1)
    blobs, count = ndimage.label(nearest > 0)
    objects = []
    for label in range(1, count + 1):
        blob = blobs == label
        if blob.sum() >= MIN_AREA:
            objects += _split_blob(pixels, blob, nearest, ground_colour)
    covered = np.zeros(image.shape[:2], bool)
    for item in objects:
        covered |= item.mask
    return Segmentation(tuple(objects), ground, ~covered)


def _distances(pixels: Pixels, palette: Pixels) -> Pixels:
    distances: Pixels = np.linalg.norm(pixels[..., None, :] - palette, axis=-1)
    return distances


def _find_ground(pixels: Pixels) -> tuple[str, Pixels]:
    palette = np.array([*GROUNDS.values(), *COLOURS.values()], float)
    nearest = _distances(pixels, palette).argmin(-1)
    votes = np.bincount(nearest.ravel(), minlength=len(palette))[: len(GROUNDS)]
    best = int(votes.argmax())
    name = tuple(GROUNDS)[best]
    if not votes[best]:
        return name, np.array(GROUNDS[name], float)
    return name, np.median(pixels[nearest == best], axis=0)


def _split_blob(
    pixels: Pixels, blob: Mask, nearest: npt.NDArray[np.intp], ground_colour: Pixels
) -> list[FoundObject]:
    """The objects of one connected blob: one a colour, in parts that hang together."""
    core = ndimage.binary_erosion(blob)
    if core.sum() < MIN_AREA // 2:
        core = blob
    votes = np.bincount(nearest[core], minlength=len(COLOURS) + 1)
    votes[0] = 0
    if not votes.any():
        return []
    strong = [int(c) for c in np.flatnonzero(votes >= _SECOND_COLOUR * votes.sum())]
    if len(strong) > 1 and not _are_apart(pixels[core], nearest[core], strong):
        strong = [_nearest_hue(np.median(pixels[core & (nearest > 0)], axis=0), strong)]
    objects = []
    for colour in strong:
        own = blob
        if len(strong) > 1:
            palette = np.array([_palette(c) for c in strong])
            own = blob & (_distances(pixels, palette).argmin(-1) == strong.index(colour))
        parts, count = ndimage.label(own)
        for label in range(1, count + 1):
            part = parts == label
            if part.sum() < MIN_AREA:
                continue
            mask = _refine(pixels, part, colour, ground_colour, len(strong) > 1)
            if mask.sum() >= MIN_AREA:
                objects.append(_describe(mask, tuple(COLOURS)[colour - 1]))
    return objects


def _palette(number: int) -> Pixels:
    """A colour by its number, counted from 1."""
    return np.array(tuple(COLOURS.values())[number - 1], float)


def _nearest_hue(pixel: Pixels, colours: list[int]) -> int:
    """The one of some colours whose hue comes nearest, however dark or pale the pixel is."""
    return min(colours, key=lambda colour: abs(np.angle(_hue(pixel) / _hue(_palette(colour)))))


def _hue(pixel: Pixels) -> complex:
    """A pixel in the plane across the gray axis: its angle is its hue."""
    red, green, blue = pixel
    return complex(2 * red - green - blue, np.sqrt(3) * (green - blue))


def _are_apart(pixels: Pixels, nearest: npt.NDArray[np.intp], colours: list[int]) -> bool:
    """Return whether pixels of several colours are of several objects, not of one blended colour.

    A model may draw an orange that is half yellow: its pixels scatter about the middle between the
    two, and lie on either side of it by chance. Those of two objects lie about each colour.
    """
    means = [np.median(pixels[nearest == colour], axis=0) for colour in colours]
    return all(
        float(np.linalg.norm(one - other))
        >= _APART * float(np.linalg.norm(_palette(a) - _palette(b)))
        for (a, one), (b, other) in combinations(zip(colours, means, strict=True), 2)
    )


def _refine(pixels: Pixels, part: Mask, colour: int, ground_colour: Pixels, shared: bool) -> Mask:
    """Put the edge where a pixel is half object, half ground; mixed colours mislead a palette."""
    share = _share(pixels, _palette(colour), ground_colour)
    # What is drawn may be darker or paler than the palette; blends at its edge must not count.
    inner = part & (share >= np.quantile(share[part], _INNER))
    share = _share(pixels, np.median(pixels[inner], axis=0), ground_colour)
    region = part if shared else ndimage.binary_dilation(part, iterations=1)
    refined: Mask = region & (share > 0.5)
    return refined


def _share(pixels: Pixels, colour: Pixels, ground_colour: Pixels) -> Pixels:
    """Return each pixel's place on the way from the ground to a colour: 0 to 1 for a blend."""
    towards = colour - ground_colour
    share: Pixels = (pixels - ground_colour) @ towards / (towards @ towards)
    return share


@cache
def _unit_area(shape: str) -> float:
    """Area of a shape of radius 1."""
    ys, xs = np.mgrid[-1.25:1.25:1000j, -1.25:1.25:1000j]
    return float((signed_distance(shape, xs, ys, 1.0) < 0).mean() * 2.5**2)


#: How far below its radius' centre a triangle's centre of mass lies, in radii.
_CENTRE_OF_MASS = {"triangle": (2 * 0.9 - 1.0) / 3}


def _describe(mask: Mask, colour: str) -> FoundObject:
    ys, xs = np.nonzero(mask)
    y, x = float(ys.mean()) + 0.5, float(xs.mean()) + 0.5
    grid_y, grid_x = np.mgrid[0 : mask.shape[0], 0 : mask.shape[1]] + 0.5
    best, best_fit = None, 0.0
    for shape in SHAPES:
        radius = float(np.sqrt(mask.sum() / _unit_area(shape)))
        top = y - _CENTRE_OF_MASS.get(shape, 0.0) * radius
        outline = signed_distance(shape, grid_x - x, grid_y - top, radius) < 0
        fit = float((outline & mask).sum() / (outline | mask).sum())
        if fit > best_fit:
            best, best_fit = shape, fit
    return FoundObject(colour, best if best_fit >= MIN_FIT else None, best_fit, mask, y, x)
