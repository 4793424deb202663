"""Draws a scene: the image, and the exact mask of everything that its prompt names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wordlight.backends.prompts import RenderedScene, distance_along, generator_of
from wordlight.backends.scenes.grammar import COLOURS, GROUNDS, SPLITS, Scene, sample_scene

SIZE = 64
_MARGIN = 1.5
_GAP = 3.0
#: Radii in pixels by how many objects there are (up to two, more) and what size is asked for.
_RADII: dict[bool, dict[str | None, tuple[float, float]]] = {
    False: {"small": (5.5, 7.0), None: (8.5, 10.5), "large": (12.5, 14.0)},
    True: {"small": (4.8, 5.8), None: (6.8, 8.2), "large": (9.2, 10.6)},
}


@dataclass(frozen=True)
class PlacedObject:
    """One drawn object: which group it belongs to, its centre and radius in pixels."""

    group: int
    x: float
    y: float
    radius: float


def signed_distance(
    shape: str, dx: npt.NDArray[np.float64], dy: npt.NDArray[np.float64], radius: float
) -> npt.NDArray[np.float64]:
    """Signed distance in pixels (negative inside) to a shape's outline; y grows downwards.

    The lengths are chosen so that all four shapes look equally large.
    """
    ax, ay = np.abs(dx), np.abs(dy)
    distance: npt.NDArray[np.float64]
    match shape:
        case "circle":
            distance = np.hypot(dx, dy) - radius
        case "square":
            distance = np.maximum(ax, ay) - 0.9 * radius
        case "triangle":
            # Apex at the top; the two slanted sides have slope 2, so a unit normal of (2, 1)/√5.
            slant = (2.0 * ax - dy - radius) / np.sqrt(5.0)
            distance = np.maximum(slant, dy - 0.9 * radius)
        case "cross":
            arm = 0.34 * radius
            distance = np.minimum(
                np.maximum(ax - radius, ay - arm), np.maximum(ay - radius, ax - arm)
            )
        case _:
            raise ValueError(f"no shape {shape!r}")
    return distance


def _fits(scene: Scene, placed: list[PlacedObject], new: PlacedObject) -> bool:
    for other in placed:
        apart = new.radius + other.radius + _GAP
        if max(abs(new.x - other.x), abs(new.y - other.y)) < apart:
            return False
        if new.group == other.group or scene.relation in (None, "and"):
            continue
        first, second = (other, new) if other.group < new.group else (new, other)
        offset = (second.x - first.x, second.y - first.y)
        if distance_along(str(scene.relation), *offset) < apart:
            return False
    return True


def _place(scene: Scene, rng: np.random.Generator) -> tuple[PlacedObject, ...]:
    order = [i for i, group in enumerate(scene.groups) for _ in range(group.count)]
    radii_table = _RADII[len(order) > 2]
    shrink = 1.0
    while True:
        for _ in range(40):
            placed: list[PlacedObject] = []
            for index in order:
                low, high = radii_table[scene.groups[index].size]
                radius = float(rng.uniform(low, high)) * shrink
                edge = radius + _MARGIN
                for _ in range(12):
                    x, y = (float(v) for v in rng.uniform(edge, SIZE - edge, 2))
                    candidate = PlacedObject(index, x, y, radius)
                    if _fits(scene, placed, candidate):
                        placed.append(candidate)
                        break
                else:
                    break
            if len(placed) == len(order):
                return tuple(placed)
        shrink *= 0.94


def render_scene(scene: Scene, rng: np.random.Generator) -> RenderedScene:
    """Draw ``scene`` with places, sizes and an unnamed ground drawn from ``rng``."""
    objects = _place(scene, rng)
    ground = scene.ground or str(rng.choice(list(GROUNDS)))
    ys, xs = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    image = np.empty((SIZE, SIZE, 3))
    image[:] = GROUNDS[ground]
    masks = [np.zeros((SIZE, SIZE), bool) for _ in scene.groups]
    for item in objects:
        group = scene.groups[item.group]
        distance = signed_distance(group.shape, xs - item.x, ys - item.y, item.radius)
        cover = np.clip(0.5 - distance, 0.0, 1.0)[..., None]
        image = image * (1.0 - cover) + np.array(COLOURS[group.colour]) * cover
        masks[item.group] |= distance < 0.0
    return RenderedScene(scene, np.rint(image).astype(np.uint8), ground, objects, tuple(masks))


def rendered(split: str, index: int, seed: int = 0) -> RenderedScene:
    """The ``index``-th rendered scene of a split: the same on every machine.

    Raises ValueError for an unknown split or a negative index.
    """
    rng = generator_of(split, index, seed, SPLITS)
    return render_scene(sample_scene(rng, split), rng)
