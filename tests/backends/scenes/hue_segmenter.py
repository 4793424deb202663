"""A segmentation by hue, to hold the segmenter's masks of drawn scenes against.

Unlike ``backends/scenes/segment.py`` it knows hues alone, and neither the palette's brightness, nor
the ground, nor outlines. A blend with a gray ground has the hue of its colour, and a share of its
chroma (the largest channel less the smallest), so that an edge lies where half of that is left.

Run as a command, it draws test prompts and prints how far the two agree:
``python -m tests.backends.scenes.hue_segmenter 64``.
"""

from __future__ import annotations

import sys

import numpy as np
from scipy import ndimage

from wordlight.backends.scenes.grammar import COLOURS
from wordlight.backends.scenes.segment import segment

#: A drawn object has more chroma than this, and the blobs on gray grounds less.
CHROMA = 60
#: Two groups of a region's pixels are two objects where their hues are this far apart, in radians.
APART = 0.15
MIN_AREA = 16


def hue_and_chroma(image):
    red, green, blue = np.moveaxis(np.asarray(image, float), -1, 0)
    hue = np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)
    return hue, np.maximum.reduce([red, green, blue]) - np.minimum.reduce([red, green, blue])


HUES = hue_and_chroma(list(COLOURS.values()))[0]


def hue_masks(image):
    """The mask of everything of a colour, by the colour's name."""
    hue, chroma = hue_and_chroma(image)
    z = chroma * np.exp(1j * hue)
    smooth = ndimage.gaussian_filter(z.real, 1.0) + 1j * ndimage.gaussian_filter(z.imag, 1.0)
    off = np.abs(np.angle(smooth[..., None] * np.exp(-1j * HUES)))
    found = {name: np.zeros(hue.shape, bool) for name in COLOURS}
    regions, count = ndimage.label(chroma > CHROMA / 2)
    for number in range(1, count + 1):
        region = regions == number
        full = np.quantile(chroma[region], 0.9)
        if full < CHROMA:
            continue
        shown = region & (chroma > full / 2)
        first = off.argmin(-1)
        there = [k for k in range(len(HUES)) if (shown & (first == k)).sum() >= MIN_AREA]
        means = [np.angle(z[shown & (first == k)].sum()) for k in there]
        if len(there) < 2 or min(np.abs(np.angle(np.exp(1j * np.diff(means))))) < APART:
            mean = np.angle(z[shown].sum())
            there = [int(np.abs(np.angle(np.exp(1j * (mean - HUES)))).argmin())]
        nearest = np.array(there)[off[..., there].argmin(-1)]
        for k in there:
            own = shown & (nearest == k)
            if own.sum() >= MIN_AREA:
                found[tuple(COLOURS)[k]] |= own
    return {name: mask for name, mask in found.items() if mask.any()}


def agreement(image, prompt):
    """IoU of the segmenter's and the hue's mask of each colour that a prompt asks for."""
    by_hue = hue_masks(image)
    nothing = np.zeros(image.shape[:2], bool)
    own = dict.fromkeys(COLOURS, nothing)
    for one in segment(image).objects:
        own[one.colour] = own[one.colour] | one.mask
    for colour in set(prompt.replace(".", "").split()) & set(COLOURS):
        either = own[colour] | by_hue.get(colour, nothing)
        if either.any():
            both = own[colour] & by_hue.get(colour, nothing)
            yield colour, both.sum() / either.sum()


def main(n):
    from wordlight import load
    from wordlight.comparisons.datasets.images.generated_scenes import BATCH, GeneratedScenes

    scenes = GeneratedScenes(load("scenes"), "test", n)
    found = []
    for start in range(0, n, BATCH):
        for index, drawn in enumerate(scenes.draw(start), start):
            found += [
                (float(iou), index, colour, drawn.prompt)
                for colour, iou in agreement(drawn.image, drawn.prompt)
            ]
    values = [iou for iou, *_ in found]
    print(f"{len(values)} colours in {n} images: median {np.median(values):.3f}")
    for iou, index, colour, prompt in sorted(found)[:6]:
        print(f"  {iou:.3f} {colour} of {index}: {prompt}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
