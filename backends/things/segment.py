"""Finds things in an image, without a prompt: a small network on numpy, and what hangs together.

The network is trained on composites with exact masks alone (``train_segmenter.py``); what a model
draws never teaches it. Its weights, with every normalisation folded into the convolution before it,
are ``segmenter.safetensors``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file
from scipy import ndimage

from wordlight.backends.prompts import FoundScene, Mask
from wordlight.backends.things.grammar import GROUNDS, Group, Scene
from wordlight.backends.things.nouns import NOUNS
from wordlight.backends.things.render import SIZE

WEIGHTS = Path(__file__).with_name("segmenter.safetensors")
#: What a cell can show: the grounds, then the nouns.
CLASSES = (*GROUNDS, *NOUNS)
GROUND_ID = {name: CLASSES.index(name) for name in GROUNDS}
NOUN_ID = {name: CLASSES.index(name) for name in NOUNS}
#: Goes up with every change of the masks that are found, its weights included.
MASKS_VERSION = 1
#: Fewest pixels of a thing.
MIN_AREA = 12
#: A second noun within one connected blob counts from this share of its pixels on.
_SECOND_NOUN = 0.2

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FoundThing:
    """A thing in an image: its noun, its mask and the mask's centre in pixels."""

    noun: str
    mask: Mask
    y: float
    x: float


@dataclass(frozen=True)
class Segmentation(FoundScene):
    """The things of an image."""

    objects: tuple[FoundThing, ...]

    def members(self, scene: Scene, group: Group) -> list[FoundThing]:
        """Return the things that a noun phrase means: those of its noun."""
        return [item for item in self.objects if item.noun == group.noun]


def segment(image: npt.NDArray[np.uint8]) -> Segmentation:
    """Find the things of an image of ``(64, 64, 3)`` uint8.

    Raises ValueError for another shape or type.
    """
    if image.shape != (SIZE, SIZE, 3) or image.dtype != np.uint8:
        raise ValueError(
            f"an image must be ({SIZE}, {SIZE}, 3) uint8, not {image.shape} {image.dtype}"
        )
    covered, scores = predict(load_weights(), image[None])
    return assemble(covered[0] > 0, scores[0])


def assemble(covered: Mask, scores: Array) -> Segmentation:
    """Make things of a network's output.

    Args:
        covered: where things are, ``(64, 64)``.
        scores: one a class, ``(32, 32, classes)``: each cell stands for two by two pixels.
    """
    of_grounds = scores[..., : len(GROUNDS)]
    of_nouns = scores[..., len(GROUNDS) :].repeat(2, 0).repeat(2, 1)
    free = ~covered.reshape(SIZE // 2, 2, SIZE // 2, 2).any((1, 3))
    votes = of_grounds[free] if free.any() else of_grounds.reshape(-1, len(GROUNDS))
    ground = tuple(GROUNDS)[int(votes.mean(0).argmax())]
    blobs, count = ndimage.label(covered, np.ones((3, 3)))
    objects = [
        item for label in range(1, count + 1) for item in _split_blob(blobs == label, of_nouns)
    ]
    taken = np.zeros(covered.shape, bool)
    for item in objects:
        taken |= item.mask
    return Segmentation(tuple(objects), ground, ~taken)


def _split_blob(blob: Mask, scores: Array) -> list[FoundThing]:
    """Return the things of one connected blob: one a noun, in parts that hang together."""
    if blob.sum() < MIN_AREA:
        return []
    votes = np.bincount(scores[blob].argmax(-1), minlength=len(NOUNS))
    strong = np.flatnonzero(votes >= max(MIN_AREA, _SECOND_NOUN * votes.sum()))
    if not len(strong):
        strong = np.array([votes.argmax()])
    best = strong[scores[..., strong].argmax(-1)]
    things = []
    for noun in strong:
        parts, count = ndimage.label(blob & (best == noun), np.ones((3, 3)))
        for label in range(1, count + 1):
            mask = parts == label
            if mask.sum() >= MIN_AREA:
                y, x = (float(places.mean()) + 0.5 for places in np.nonzero(mask))
                things.append(FoundThing(tuple(NOUNS)[int(noun)], mask, y, x))
    return things


@cache
def load_weights() -> dict[str, Array]:
    """Return the weights, in single precision.

    Raises FileNotFoundError where there are none.
    """
    if not WEIGHTS.exists():
        raise FileNotFoundError(
            f"the segmenter of things has no weights at {WEIGHTS}: train it by `python -m "
            "wordlight.backends.training.train_segmenter`"
        )
    return {name: values.astype(np.float32) for name, values in load_file(WEIGHTS).items()}


#: The levels of the network at 32x32, 16x16, 8x8 and 4x4 cells, and their channels.
WIDTHS = (32, 64, 128, 192)


def predict(weights: dict[str, Array], images: npt.NDArray[np.uint8]) -> tuple[Array, Array]:
    """Run the network on ``(batch, 64, 64, 3)`` uint8.

    Returns:
        The scores for being covered by a thing, ``(batch, 64, 64)``, above 0 where one is likely,
        and those of the classes, ``(batch, 32, 32, classes)``.
    """
    x = images.astype(np.float32) / 127.5 - 1.0
    skips = []
    for level in range(len(WIDTHS)):
        x = _relu(_conv(weights, f"down{level}", x, stride=2))
        x = _relu(_conv(weights, f"same{level}", x))
        skips.append(x)
    for level in reversed(range(len(WIDTHS) - 1)):
        x = _conv(weights, f"up{level}", x).repeat(2, 1).repeat(2, 2) + skips[level]
        x = _relu(_conv(weights, f"merge{level}", x))
    covered = _conv(weights, "covered", x)
    n, side, _, _ = covered.shape
    # Each cell tells of its two by two pixels.
    covered = covered.reshape(n, side, side, 2, 2).transpose(0, 1, 3, 2, 4)
    return covered.reshape(n, 2 * side, 2 * side), _conv(weights, "classes", x)


def _relu(x: Array) -> Array:
    return np.maximum(x, 0.0)


def _conv(weights: dict[str, Array], name: str, x: Array, stride: int = 1) -> Array:
    """Convolve ``(batch, y, x, channels)`` with a kernel ``(out, in, k, k)``, padded by k // 2."""
    kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    out, _, k, _ = kernel.shape
    edge = k // 2
    x = np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]
    n, rows, columns = windows.shape[:3]
    product: Array = windows.reshape(n * rows * columns, -1) @ kernel.reshape(out, -1).T
    return product.reshape(n, rows, columns, out) + bias
