"""A study of how the maps of a head and of its dependent lie to each other, by dependency
relation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from wordlight.attribution.maps import AttributionMaps
from wordlight.attribution.words import PromptWords
from wordlight.backends.backend import Backend
from wordlight.comparisons.datasets.tagged_text import TaggedText
from wordlight.comparisons.metrics.shown_map import ShownMap
from wordlight.comparisons.results.text_tables import aligned
from wordlight.comparisons.runs.options import number, option, options
from wordlight.comparisons.stats.intervals import SHARE, Estimate, mean_over_words
from wordlight.comparisons.studies.results import estimate_data, estimate_text
from wordlight.comparisons.studies.texts import (
    THE_PAPER,
    StudyTexts,
    TextFindings,
    TextStudy,
    draw,
    is_punctuation,
    method_for,
    place_words,
)

#: Rows over many relations; what they are called in results.
UNRELATED, RELATED = "(unrelated pairs)", "(all relations)"
#: mIoD and mIoH of the paper's table, as far as known here.
PAPER = {
    UNRELATED: (0.651, 0.661),
    RELATED: (0.623, 0.620),
    "compound": (0.713, 0.715),
}

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RelationOverlap:
    """One dependency relation.

    Attributes:
        relation: of Universal Dependencies, or one of the rows over many.
        iod: over pairs, the share of the dependent's mask that the head's covers.
        ioh: the share of the head's mask that the dependent's covers.
        iou: their intersection over their union.
        paper: mIoD and mIoH that the paper found, or None.
    """

    relation: str
    iod: Estimate
    ioh: Estimate
    iou: Estimate
    paper: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class RelationsStudy(TextFindings):
    """The findings: unrelated pairs, all relations, then each relation by how often it occurs."""

    threshold: float
    rows: tuple[RelationOverlap, ...]

    @property
    def text(self) -> str:
        return table(self)

    def to_json(self) -> dict[str, Any]:
        """Plain data; what can't be estimated is null."""
        return {
            **self.facts(),
            "threshold": self.threshold,
            "rows": [
                {
                    "relation": row.relation,
                    "miod": estimate_data(row.iod),
                    "mioh": estimate_data(row.ioh),
                    "miou": estimate_data(row.iou),
                    "paper": None
                    if row.paper is None
                    else {"miod": row.paper[0], "mioh": row.paper[1]},
                }
                for row in self.rows
            ],
        }


def study_relations(
    backend: Backend,
    texts: StudyTexts,
    *,
    method: str = "daam",
    steps: int = 4,
    threshold: float = 0.4,
    seed: int = 0,
    on_image: Callable[[int], object] = lambda count: None,
) -> RelationsStudy:
    """Overlap of head and dependent maps by relation (Tang et al., arXiv 2210.04885).

    With D and H the masks of a dependent's and its head's maps, min-max normalised and cut at the
    threshold: mIoD is the mean of |D∩H|/|D|, mIoH of |D∩H|/|H|, mIoU of |D∩H|/|D∪H|. Pairs of words
    between which there is no relation are what to compare with; each of them is counted in both
    roles, so their mIoD and mIoH are one number. Punctuation counts for its own relation alone.

    Args:
        backend: the model.
        texts: prompts with tags, heads and relations.
        method: the name of a registered method.
        steps: the number of evenly spaced steps it looks at.
        threshold: the threshold of maps, between 0 and 1.
        seed: of the texts' images, kept with the result.
        on_image: called with how many images are done.

    Raises:
        ValueError: texts that name no head, a threshold that is none.
        ValueError, KeyError: a method that isn't there.
        MissingCapabilityError: a model that the method needs more of.
    """
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"a threshold lies between 0 and 1, not at {threshold}")
    if not any(token.head is not None for text in texts.texts for token in text.tokens):
        raise ValueError(f"{texts.source} say of no word which head it depends on")
    attributor = method_for(backend, method, steps)
    overlap = Overlaps(threshold)
    drawn = draw(backend, [text.text for text in texts.texts], texts.seeds)
    for sample, text, trajectory in zip(texts.samples, texts.texts, drawn, strict=True):
        overlap.add(sample, text, attributor.attribute(trajectory))
        on_image(1)
    return RelationsStudy(
        model=backend.model_id,
        method=attributor.name,
        source=texts.source,
        images=len(texts),
        steps=steps,
        seed=seed,
        threshold=threshold,
        rows=overlap.rows,
        not_placed=overlap.not_placed,
    )


class Overlaps:
    """Overlaps of words' masks, gathered image by image."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.not_placed = 0
        self._pairs: dict[str, list[tuple[str, float, float, float]]] = {UNRELATED: [], RELATED: []}

    def add(self, sample: str, text: TaggedText, maps: AttributionMaps) -> None:
        """Add the maps of an image."""
        placed = place_words(text, PromptWords.of(maps.tokens))
        self.not_placed += len(text.tokens) - len(placed)
        masks = {i: ShownMap(maps.at(word)).mask(self.threshold) for i, word in placed.items()}
        arcs: set[frozenset[int]] = set()
        for index, token in enumerate(text.tokens):
            if token.head is None:
                continue
            arcs.add(frozenset((index, token.head)))
            if index in masks and token.head in masks:
                pair = (sample, *overlaps(masks[index], masks[token.head]))
                self._pairs.setdefault(token.relation or "dep", []).append(pair)
                if not is_punctuation(token):
                    self._pairs[RELATED].append(pair)
        words = [index for index in masks if not is_punctuation(text.tokens[index])]
        for one, other in combinations(words, 2):
            if frozenset((one, other)) not in arcs:
                self._pairs[UNRELATED] += [
                    (sample, *overlaps(masks[one], masks[other])),
                    (sample, *overlaps(masks[other], masks[one])),
                ]

    @property
    def rows(self) -> tuple[RelationOverlap, ...]:
        """Unrelated pairs, all relations, then each relation by how often it occurs."""
        relations = [name for name in self._pairs if name not in (UNRELATED, RELATED)]
        relations.sort(key=lambda name: (-len(self._pairs[name]), name))
        return tuple(self._row(name) for name in (UNRELATED, RELATED, *relations))

    def _row(self, relation: str) -> RelationOverlap:
        pairs = self._pairs[relation]
        samples = [pair[0] for pair in pairs]
        iod, ioh, iou = (
            mean_over_words(samples, [float(pair[k]) for pair in pairs], bounds=SHARE)
            for k in (1, 2, 3)
        )
        return RelationOverlap(relation, iod, ioh, iou, PAPER.get(relation))


def overlaps(dependent: Mask, head: Mask) -> tuple[float, float, float]:
    """Intersection over the dependent's mask, over the head's, and over their union.

    Raises ValueError for an empty mask.
    """
    if not (dependent.any() and head.any()):
        raise ValueError("an empty mask overlaps nothing")
    both = float((dependent & head).sum())
    return both / dependent.sum(), both / head.sum(), both / (dependent | head).sum()


def table(found: RelationsStudy) -> str:
    """The study as text."""
    lines = [["relation", "pairs", "mIoD [95 %]", "mIoH [95 %]", "mIoU [95 %]", "paper mIoD/mIoH"]]
    for row in found.rows:
        paper = "-" if row.paper is None else f"{row.paper[0]:.3f}/{row.paper[1]:.3f}"
        numbers = [estimate_text(one) for one in (row.iod, row.ioh, row.iou)]
        lines.append([row.relation, str(row.iod.n), *numbers, paper])
    return found.report(
        aligned(lines),
        f"maps are cut at {found.threshold:g}, once they run from 0 to 1; unrelated pairs are "
        "counted in both roles; punctuation counts for its own relation alone",
        f"paper: {THE_PAPER}; Stable Diffusion on captions of COCO",
    )


@options
class Relations(TextStudy):
    """The study as a command."""

    name = "relations"
    line = "how the maps of a head and its dependents overlap, by relation"
    epilog = """\
For each dependency relation how the maps of a head and of its dependent overlap: mIoD, the share
of the dependent's mask that the head's covers; mIoH, the share of the head's that the dependent's
covers; mIoU. Pairs of words without a relation are what to compare with. What the paper of DAAM
found stands beside (another model, other prompts). Intervals are 95 %, by t over images.

examples:
  wordlight study relations -n 16 -o out/relations
  wordlight study relations --model path/to/model --conllu captions.conllu -n 100 -o out/relations
"""

    threshold: float = option(
        number(),
        "the threshold of maps scaled to run from 0 to 1",
        default=0.4,
        metavar="T",
    )

    def find(self) -> RelationsStudy:
        backend = self.load()
        texts = self.texts(backend)
        with self.bar("comparing maps", len(texts), "images") as bar:
            return study_relations(
                backend,
                texts,
                method=self.method,
                steps=self.steps,
                threshold=self.threshold,
                seed=self.seed,
                on_image=bar.update,
            )
