"""Makes README's first example, and says how typical it is: run by ``make first-picture``.

For many seeds of one prompt, whether the brightest pixel of a word's map lies on the thing that the
word names. The picture shows the first seed for which that is so for each method as often as it
mostly is.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from pages import fill

from wordlight import load
from wordlight.attribution import registry
from wordlight.attribution.maps import AttributionMaps, WordMap
from wordlight.backends.scenes.segment import segment
from wordlight.comparisons import view

PROMPT = "a red circle and a blue square on a black background"
WORDS = ("circle", "square")
PLACES = ("its own object", "the other object", "the ground")


def place_of_peak(shown: WordMap, word: str) -> str | None:
    """Where a map's brightest pixel lies, or None where the image lacks one of the objects."""
    masks = {}
    for found in segment(shown.image).objects:
        masks[found.shape] = masks.get(found.shape, False) | found.mask
    if set(WORDS) - set(masks):
        return None
    (other,) = set(WORDS) - {word}
    at = np.unravel_index(int(shown.resized().argmax()), shown.image.shape[:2])
    return PLACES[0] if masks[word][at] else PLACES[1] if masks[other][at] else PLACES[2]


def draw(maps: Sequence[AttributionMaps], file: Path) -> None:
    """The image, and beside it each method's maps of the two words."""
    figure, axes = plt.subplots(1, 1 + len(maps) * len(WORDS), figsize=(11, 2.6))
    axes[0].imshow(maps[0].image)
    axes[0].set_title("the image", fontsize=10)
    cells = [(one, word) for one in maps for word in WORDS]
    for axis, (one, word) in zip(axes[1:], cells, strict=True):
        axis.imshow(one[word].overlay())
        axis.set_title(f"“{word}”\n{one.provenance.method}", fontsize=10)
    for axis in axes:
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def main() -> None:
    """Draw, explain, count, and write the picture of the first typical seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=16, help="seeds, from 0 (default: 16)")
    parser.add_argument("--method", action="append", help="default: daam, self-attention-refined")
    parser.add_argument(
        "--docs", type=Path, default=Path(__file__).parent, help="where the pages and images/ are"
    )
    options = parser.parse_args()
    methods = options.method or ["daam", "self-attention-refined"]
    backend = load("scenes", device="cpu")
    attributors = [registry.construct(backend, name, {}) for name in methods]
    counts = {(name, word): Counter() for name in methods for word in WORDS}
    places: dict[int, dict[tuple[str, str], str]] = {}
    explained: dict[int, list[AttributionMaps]] = {}
    for seed in range(options.n):
        run = backend.sample(PROMPT, seed=seed)
        maps = [attributor.attribute(run) for attributor in attributors]
        found = {
            (one.provenance.method, word): place_of_peak(one[word], word)
            for one in maps
            for word in WORDS
        }
        if None in found.values():
            continue
        places[seed], explained[seed] = found, maps  # type: ignore[assignment]
        for key, place in found.items():
            counts[key][place] += 1
    most = {key: count.most_common(1)[0][0] for key, count in counts.items()}
    typical = [seed for seed, found in places.items() if found == most]
    lines = [
        f"“{PROMPT}”: {len(places)} of {options.n} seeds draw both objects. The brightest pixel "
        "of a word's map lies",
        "",
        "| method | word | on its own object | on the other one | on the ground |",
        "|---|---|---:|---:|---:|",
    ]
    for (name, word), count in counts.items():
        numbers = " | ".join(str(count[place]) for place in PLACES)
        lines.append(f"| `{name}` | {word} | {numbers} |")
    lines += [
        "",
        f"The image is that of seed {typical[0]}, the first for which each map does what it mostly "
        f"does; {len(typical)} of {len(places)} are like it.",
    ]
    print("\n".join(lines))
    fill(options.docs / "first-example.md", "count", "\n".join(lines))
    draw(explained[typical[0]], options.docs / "images" / "first.png")
    view(explained[typical[0]]).to_html(options.docs / "viewer.html")


if __name__ == "__main__":
    main()
