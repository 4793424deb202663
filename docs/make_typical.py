"""Counts how often a word's map finds its object in pictures of the README's first kind.

    python docs/make_typical.py -n 100

The prompts are "a SIZE COLOUR SHAPE to the left of a SIZE COLOUR SHAPE on a GROUND background", of
random words in pairs that ``scenes`` was trained on, each with a seed of its own. Nouns of pictures
that show both objects count; a noun's map finds its object where the map's highest pixels lie in it
(the pointing game). Methods look at all steps, as `wordlight attribute` has them do.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np
from tqdm import tqdm

from wordlight import load
from wordlight.attribution import DAAM, SelfAttentionRefined
from wordlight.backends.prompts import SIZES
from wordlight.backends.scenes.grammar import (
    COLOURS,
    GROUNDS,
    SHAPES,
    UNSEEN_PAIRS,
    Group,
    Scene,
)
from wordlight.comparisons.datasets.scenes import scene_item
from wordlight.comparisons.metrics.pointing import pointing_game
from wordlight.comparisons.metrics.shown_map import ShownMap

#: The method of the README's picture, and the one that all began with.
METHODS = (SelfAttentionRefined, DAAM)


def scene_of(rng: np.random.Generator) -> Scene:
    """A scene of the README's first kind: two objects of two colours and two shapes."""
    while True:
        colours = rng.choice(list(COLOURS), 2, replace=False)
        shapes = rng.choice(SHAPES, 2, replace=False)
        if not UNSEEN_PAIRS & set(zip(colours, shapes, strict=True)):
            break
    sizes = rng.choice(list(SIZES), 2)
    groups = tuple(
        Group(1, str(size), str(colour), str(shape))
        for size, colour, shape in zip(sizes, colours, shapes, strict=True)
    )
    return Scene(groups, "left", str(rng.choice(list(GROUNDS))), full_stop=False)


def main() -> None:
    """Draw, explain and count."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-n", type=int, default=100, help="pictures (default: 100)")
    parser.add_argument("--model", default="scenes", help="an embedded model (default: scenes)")
    options = parser.parse_args()
    backend, rng = load(options.model), np.random.default_rng(0)
    hits: defaultdict[str, list[bool]] = defaultdict(list)
    for seed in tqdm(range(options.n), desc="pictures"):
        scene = scene_of(rng)
        item = scene_item(f"{seed}", "typical", scene, backend.sample(scene.prompt, seed=seed))
        for kind in METHODS:
            maps = kind(backend).attribute(item.trajectory)
            for word in item.words:
                if word.headline:
                    shown = ShownMap(maps.at(word.word))
                    hits[kind.name].append(pointing_game(shown.raw, word.mask) > 0.5)
    asked = 2 * options.n
    for name, found in hits.items():
        print(
            f"{name}: the map's highest point lies in the object for {sum(found)} of {len(found)} "
            f"nouns ({np.mean(found):.0%}); {asked - len(found)} of {asked} are of pictures that "
            "don't show both objects"
        )


if __name__ == "__main__":
    main()
