"""Draws a scene of things: the image, and the exact mask of everything that its prompt names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from wordlight.backends.prompts import Mask, RenderedScene, distance_along, generator_of
from wordlight.backends.things.grammar import COLOURS, GROUNDS, SPLITS, Scene, sample_scene
from wordlight.backends.things.grounds import draw_ground
from wordlight.backends.things.nouns import HELD_OUT_STYLE, TRAINED_STYLES
from wordlight.backends.things.pictures import picture

SIZE = 64
#: At most this share of a thing is covered by others.
MAX_COVERED = 0.2
_MARGIN = 1
_GAP = 2.0
#: Distance of two groups' things along their relation, as a share of what would part their boxes.
_APART = 0.85
#: Longer sides in pixels, by how many things there are and what size is asked for.
_SIDES: dict[int, dict[str | None, tuple[int, int]]] = {
    1: {"small": (16, 21), None: (27, 36), "large": (42, 52)},
    2: {"small": (14, 18), None: (22, 29), "large": (33, 40)},
    3: {"small": (13, 16), None: (19, 24), "large": (27, 31)},
}


@dataclass(frozen=True)
class PlacedThing:
    """One drawn thing: its group, the style and picture, and the centre of its box in pixels."""

    group: int
    style: str
    side: int
    mirrored: bool
    left: int
    top: int
    width: int
    height: int

    @property
    def x(self) -> float:
        """The centre of the box from the left."""
        return self.left + self.width / 2

    @property
    def y(self) -> float:
        """The centre of the box from the top."""
        return self.top + self.height / 2


@lru_cache(maxsize=8192)
def tinted(
    noun: str, style: str, side: int, mirrored: bool, colour: str | None
) -> npt.NDArray[np.uint8]:
    """Return a noun's picture as ``picture`` does, in shades of a colour.

    Pixels of the thing's middle brightness get the colour itself, darker and brighter ones its
    shades towards black and white.
    """
    pixels = picture(noun, style, side, mirrored)
    if colour is None:
        return pixels
    values = pixels.astype(np.float64)
    alpha = values[..., 3:]
    bright = values[..., :3] @ [0.299, 0.587, 0.114]
    bright = bright / np.maximum(alpha[..., 0], 1.0)  # of 1, with the weighting by alpha undone
    middle = float(np.clip(np.median(bright[alpha[..., 0] >= 128]), 0.15, 0.85))
    dark = np.clip(bright / middle, 0.0, 1.0)[..., None]
    light = np.clip((bright - middle) / (1.0 - middle), 0.0, 1.0)[..., None]
    shades = np.array(COLOURS[colour]) * dark
    shades = shades + (255.0 - shades) * light
    found: npt.NDArray[np.uint8]
    found = np.rint(np.concatenate([shades * alpha / 255.0, alpha], -1)).astype(np.uint8)
    return found


def render_scene(
    scene: Scene, rng: np.random.Generator, styles: tuple[str, ...] = TRAINED_STYLES
) -> RenderedScene:
    """Draw ``scene`` with places, sizes, styles and an unnamed ground drawn from ``rng``."""
    objects = _place(scene, styles, rng)
    ground = scene.ground or str(rng.choice(list(GROUNDS)))
    image = draw_ground(ground, SIZE, rng)
    for item in objects:
        pixels = _pixels(scene, item)
        box = _box(item)
        image[box] = image[box] * (1.0 - pixels[..., 3:] / 255.0) + pixels[..., :3]
    masks = [np.zeros((SIZE, SIZE), bool) for _ in scene.groups]
    for item, seen in zip(objects, _seen(scene, objects), strict=True):
        masks[item.group] |= seen
    return RenderedScene(
        scene, np.rint(np.clip(image, 0, 255)).astype(np.uint8), ground, objects, tuple(masks)
    )


def _pixels(scene: Scene, item: PlacedThing) -> npt.NDArray[np.uint8]:
    group = scene.groups[item.group]
    return tinted(group.noun, item.style, item.side, item.mirrored, group.colour)


def _box(item: PlacedThing) -> tuple[slice, slice]:
    return (
        slice(item.top, item.top + item.height),
        slice(item.left, item.left + item.width),
    )


def _whole(scene: Scene, item: PlacedThing) -> Mask:
    """Return the mask of a thing, as if nothing covered it."""
    mask = np.zeros((SIZE, SIZE), bool)
    mask[_box(item)] = _pixels(scene, item)[..., 3] >= 128
    return mask


def _seen(scene: Scene, objects: tuple[PlacedThing, ...]) -> list[Mask]:
    """Return what is seen of each thing."""
    covered = np.zeros((SIZE, SIZE), bool)
    seen = []
    for item in reversed(objects):
        whole = _whole(scene, item)
        seen.append(whole & ~covered)
        covered |= whole
    return seen[::-1]


def covered_shares(scene: Scene, objects: tuple[PlacedThing, ...]) -> list[float]:
    """Return the share of each thing that others cover."""
    wholes = [float(_whole(scene, item).sum()) for item in objects]
    seen = [float(mask.sum()) for mask in _seen(scene, objects)]
    return [1.0 - part / whole for part, whole in zip(seen, wholes, strict=True)]


def _place(
    scene: Scene, styles: tuple[str, ...], rng: np.random.Generator
) -> tuple[PlacedThing, ...]:
    order = [index for index, group in enumerate(scene.groups) for _ in range(group.count)]
    chosen = [str(rng.choice(styles)) for _ in scene.groups]
    rng.shuffle(order)  # who covers whom is as it comes
    shrink = 1.0
    while True:
        for _ in range(30):
            placed = _attempt(scene, order, chosen, shrink, rng)
            if placed and max(covered_shares(scene, placed)) <= MAX_COVERED:
                return placed
        shrink *= 0.95


def _attempt(
    scene: Scene, order: list[int], styles: list[str], shrink: float, rng: np.random.Generator
) -> tuple[PlacedThing, ...]:
    """Return the things placed by chance, or nothing where one found no place."""
    placed: list[PlacedThing] = []
    for index in order:
        group = scene.groups[index]
        low, high = _SIDES[len(order)][group.size]
        side = max(8, round(float(rng.uniform(low, high)) * shrink))
        mirrored = bool(rng.random() < 0.5)
        height, width, _ = picture(group.noun, styles[index], side, mirrored).shape
        for _ in range(12):
            left = int(rng.integers(_MARGIN, SIZE - _MARGIN - width + 1))
            top = int(rng.integers(_MARGIN, SIZE - _MARGIN - height + 1))
            new = PlacedThing(index, styles[index], side, mirrored, left, top, width, height)
            if all(_fits(scene.relation, other, new) for other in placed):
                placed.append(new)
                break
        else:
            return ()
    return tuple(placed)


def _fits(relation: str | None, other: PlacedThing, new: PlacedThing) -> bool:
    apart_x = abs(new.x - other.x) - (new.width + other.width) / 2
    apart_y = abs(new.y - other.y) - (new.height + other.height) / 2
    if new.group == other.group:
        return max(apart_x, apart_y) >= _GAP
    first, second = (other, new) if other.group < new.group else (new, other)
    if relation is None or relation == "and":
        return True
    ahead = distance_along(relation, second.x - first.x, second.y - first.y)
    across = relation in ("left", "right")
    length = (new.width + other.width if across else new.height + other.height) / 2
    return ahead >= _APART * length


def rendered(split: str, index: int, seed: int = 0) -> RenderedScene:
    """Return the ``index``-th rendered scene of a split: the same on every machine.

    The split ``unseen-style`` is drawn in the held-out style, every other in the others.

    Raises ValueError for an unknown split or a negative index.
    """
    rng = generator_of(split, index, seed, SPLITS)
    styles = (HELD_OUT_STYLE,) if split == "unseen-style" else TRAINED_STYLES
    return render_scene(sample_scene(rng, split), rng, styles)
