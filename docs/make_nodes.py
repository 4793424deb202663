"""Measures integrated gradients by its number of nodes, and writes the page's table.

    python docs/make_nodes.py -n 24

Truth are the maps with 64 nodes, on images of the validation split. The players are the shape
nouns, the rest of the prompt, ``<start>``, ``<end>`` and ``<pad>``. Takes some minutes an image on
a core; ``--out table.md`` writes elsewhere than into docs/methods/integrated-gradients.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from pages import write_table
from tqdm import tqdm

from wordlight.attribution import DAAM, InputXGradient, IntegratedGradients, Occlusion
from wordlight.attribution.attributor import TextImageAttributor
from wordlight.attribution.maps import AttributionMaps
from wordlight.attribution.words import PromptWords, WordKey
from wordlight.backends.backend import Backend
from wordlight.comparisons.datasets.images.generated_scenes import GeneratedScenes
from wordlight.comparisons.datasets.item import DatasetItem, ScoredWord
from wordlight.comparisons.datasets.scenes import scene_item
from wordlight.comparisons.metrics.segmentation import threshold_curve

#: The numbers of nodes that are tried, and that which the others are held against.
NODES, TRUTH = (2, 4, 8, 16), 64
#: How many evenly spaced steps are looked at.
STEPS = 4


def items_of(backend: Backend, n: int, split: str = "validation") -> Iterable[DatasetItem]:
    """Draw the first images of a split, with the masks found in them."""
    images = GeneratedScenes(backend, split, n)
    for start in range(0, n, images.batch):
        for index, drawn in zip(images.batch_from(start), images.draw(start), strict=True):
            name = images.sample_name(index)
            yield scene_item(name, images.split, images.scene(index), drawn)


def error(maps: AttributionMaps, truth: AttributionMaps) -> float:
    """Return Σ|difference| over Σ|truth|, of all words and pixels."""
    own, other = maps.data.values.astype(float), truth.data.values.astype(float)
    return float(np.abs(own - other).sum() / np.abs(other).sum())


class Curves:
    """IoU by threshold of every word of a row, for the mean at the threshold that does best."""

    def __init__(self) -> None:
        self._found: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, maps: AttributionMaps, words: Iterable[ScoredWord]) -> None:
        """Take in the scored nouns of an image."""
        for word in words:
            for name, value in threshold_curve(maps[word.word], word.mask).items():
                if "abs" not in name:
                    self._found[name].append(value)

    @property
    def best(self) -> float:
        """The mean over words at the best threshold."""
        return max((float(np.mean(values)) for values in self._found.values()), default=np.nan)

    @property
    def n_words(self) -> int:
        """How many words were scored."""
        return len(next(iter(self._found.values()), ()))


def players_of(item: DatasetItem, nouns: Iterable[ScoredWord]) -> list[WordKey]:
    """Return the scored nouns and, as one player, the rest of the prompt: each player costs
    products of its own."""
    apart = [slice(noun.word.start, noun.word.stop) for noun in nouns]
    words = PromptWords.of(item.trajectory.tokens).words
    rest = [slice(word.start, word.stop) for word in words]
    return [*apart, [place for place in rest if place not in apart]]


def measured(backend: Backend, n: int) -> str:
    """Return the table, with the rows' order among other methods below it."""
    rows: dict[str, TextImageAttributor] = {
        f"{count} nodes": IntegratedGradients(backend, steps=STEPS, n_steps=count)
        for count in (*NODES, TRUTH)
    }
    others = {kind.name: kind(backend, steps=STEPS) for kind in (DAAM, InputXGradient, Occlusion)}
    curves = {name: Curves() for name in (*rows, *others)}
    errors: defaultdict[str, list[float]] = defaultdict(list)
    costs: defaultdict[str, list[int]] = defaultdict(list)
    for item in tqdm(items_of(backend, n), total=n, unit="image"):
        nouns = [word for word in item.words if word.category == "shape-noun"]
        players = players_of(item, nouns)
        found = {name: row.attribute(item.trajectory, players) for name, row in rows.items()}
        for name, maps in found.items():
            errors[name].append(error(maps, found[f"{TRUTH} nodes"]))
            costs[name].append(maps.provenance.forward_equivalents)
            curves[name].add(maps, nouns)
        for name, method in others.items():
            curves[name].add(method.attribute(item.trajectory, players), nouns)
    lines = ["| nodes | error | mIoU@best | forward-equivalents |", "|---|---|---|---|"]
    lines += [
        f"| {name.removesuffix(' nodes')} | {np.mean(errors[name]):.2%} | {curves[name].best:.3f} "
        f"| {np.mean(costs[name]):.0f} |"
        for name in rows
    ]
    orders = {name: order_with(name, curves, list(others)) for name in rows}
    kept = [count for count in NODES if orders[f"{count} nodes"] == orders[f"{TRUTH} nodes"]]
    least = f"{min(kept)} keep it" if kept else "none of the others keeps it"
    truth, n_words = orders[f"{TRUTH} nodes"], curves["daam"].n_words
    lines += [
        "",
        f"Error: Σ|difference| over Σ|map| from {TRUTH} nodes. mIoU@best of {n_words} shape nouns "
        f"in {n} images of the validation split, each row at its own best threshold there, {STEPS} "
        f"steps. With {TRUTH} nodes the order is {truth}; {least}.",
    ]
    return "\n".join(lines)


def order_with(row: str, curves: dict[str, Curves], others: list[str]) -> str:
    """Return the names of a row and other methods by mIoU, the best first."""
    names = sorted((row, *others), key=lambda name: -curves[name].best)
    return " > ".join("integrated-gradients" if name == row else name for name in names)


if __name__ == "__main__":
    write_table(str(__doc__), "integrated-gradients.md", "nodes", 24, measured)
