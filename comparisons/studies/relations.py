"""How the maps of a head and of its dependent lie to each other, by dependency relation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from wordlight.attribution.words import PromptWords
from wordlight.backends.backend import Backend
from wordlight.comparisons.metrics.shown_map import ShownMap
from wordlight.comparisons.stats.intervals import Estimate, mean_over_words
from wordlight.comparisons.studies.results import estimate_data
from wordlight.comparisons.studies.texts import (
    StudyTexts,
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


@dataclass(frozen=True)
class RelationsStudy:
    """What was found: unrelated pairs, all relations, then each relation by how often it occurs."""

    model: str
    method: str
    source: str
    images: int
    steps: int
    seed: int
    threshold: float
    rows: tuple[RelationOverlap, ...]
    not_placed: int

    def to_json(self) -> dict[str, Any]:
        """Plain data; what can't be estimated is null."""
        return {
            **{name: getattr(self, name) for name in ("model", "method", "source", "images")},
            **{name: getattr(self, name) for name in ("steps", "seed", "threshold", "not_placed")},
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
        steps: how many evenly spaced steps it looks at.
        threshold: where maps are cut, between 0 and 1.
        seed: of the resampling.
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
    found: dict[str, list[tuple[str, float, float, float]]] = {UNRELATED: [], RELATED: []}
    not_placed = 0
    drawn = draw(backend, [text.text for text in texts.texts], texts.seeds)
    for sample, text, trajectory in zip(texts.samples, texts.texts, drawn, strict=True):
        placed = place_words(text, PromptWords.of(trajectory.tokens))
        not_placed += len(text.tokens) - len(placed)
        maps = attributor.attribute(trajectory)
        masks = {index: ShownMap(maps.at(word)).mask(threshold) for index, word in placed.items()}
        arcs: set[frozenset[int]] = set()
        for index, token in enumerate(text.tokens):
            if token.head is None:
                continue
            arcs.add(frozenset((index, token.head)))
            if index in masks and token.head in masks:
                pair = (sample, *overlaps(masks[index], masks[token.head]))
                found.setdefault(token.relation or "dep", []).append(pair)
                if not is_punctuation(token):
                    found[RELATED].append(pair)
        words = [index for index in masks if not is_punctuation(text.tokens[index])]
        for one, other in combinations(words, 2):
            if frozenset((one, other)) not in arcs:
                found[UNRELATED] += [
                    (sample, *overlaps(masks[one], masks[other])),
                    (sample, *overlaps(masks[other], masks[one])),
                ]
        on_image(1)

    def row(relation: str) -> RelationOverlap:
        samples = [pair[0] for pair in found[relation]]
        iod, ioh, iou = (
            mean_over_words(samples, [float(pair[k]) for pair in found[relation]], seed=seed)
            for k in (1, 2, 3)
        )
        return RelationOverlap(relation, iod, ioh, iou, PAPER.get(relation))

    relations = [name for name in found if name not in (UNRELATED, RELATED)]
    relations.sort(key=lambda name: (-len(found[name]), name))
    return RelationsStudy(
        model=backend.model_id,
        method=attributor.name,
        source=texts.source,
        images=len(texts),
        steps=steps,
        seed=seed,
        threshold=threshold,
        rows=tuple(row(name) for name in (UNRELATED, RELATED, *relations)),
        not_placed=not_placed,
    )


def overlaps(dependent: Mask, head: Mask) -> tuple[float, float, float]:
    """Intersection over the dependent's mask, over the head's, and over their union.

    Raises ValueError for an empty mask.
    """
    if not (dependent.any() and head.any()):
        raise ValueError("an empty mask overlaps nothing")
    both = float((dependent & head).sum())
    return both / dependent.sum(), both / head.sum(), both / (dependent | head).sum()
