"""Crowded pictures of things, to train the segmenter on: more is learned of each image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wordlight.backends.things.grammar import COLOURS, GROUNDS
from wordlight.backends.things.grounds import draw_ground
from wordlight.backends.things.nouns import NOUNS, TRAINED_STYLES
from wordlight.backends.things.render import SIZE, tinted
from wordlight.backends.things.segment import GROUND_ID, NOUN_ID

#: How many things are tried to be placed, at least and at most.
_THINGS = (4, 9)
_SIDES = (12.0, 44.0)
#: A thing that would cover more than this share of its own pixels of others is left out.
_MOST_COVERING = 0.35


def crowded(seed: int, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return an image, ``(64, 64, 3)`` uint8, and each pixel's class, ``(64, 64)`` int64.

    They depend on ``seed`` and ``index`` alone. The held-out style is never shown.
    """
    rng = np.random.default_rng([seed, 1_000, index])
    ground = str(rng.choice(list(GROUNDS)))
    image = draw_ground(ground, SIZE, rng)
    labels = np.full((SIZE, SIZE), GROUND_ID[ground])
    taken = np.zeros((SIZE, SIZE), bool)
    for _ in range(int(rng.integers(*_THINGS))):
        noun, pixels = _draw(rng)
        height, width = pixels.shape[:2]
        top, left = rng.integers(SIZE - height + 1), rng.integers(SIZE - width + 1)
        box = (slice(top, top + height), slice(left, left + width))
        whole = pixels[..., 3] >= 128
        if (whole & taken[box]).sum() > _MOST_COVERING * whole.sum():
            continue
        image[box] = image[box] * (1.0 - pixels[..., 3:] / 255.0) + pixels[..., :3]
        labels[box][whole] = NOUN_ID[noun]
        taken[box] |= whole
    return np.rint(np.clip(image, 0.0, 255.0)).astype(np.uint8), labels


def _draw(rng: np.random.Generator) -> tuple[str, npt.NDArray[np.uint8]]:
    """Return a noun and its picture, drawn by chance; small ones as often as large ones."""
    noun = list(NOUNS)[int(rng.integers(len(NOUNS)))]
    style = TRAINED_STYLES[int(rng.integers(len(TRAINED_STYLES)))]
    low, high = np.log(_SIDES)
    side = round(float(np.exp(rng.uniform(low, high))))
    colour = None
    if NOUNS[noun].tinted and rng.random() < 0.5:
        colour = tuple(COLOURS)[int(rng.integers(len(COLOURS)))]
    return noun, tinted(noun, style, side, bool(rng.random() < 0.5), colour)
