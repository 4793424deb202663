"""Head selection: DAAM over the heads that matter for a word."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from wordlight.attribution.maps import WordMap
from wordlight.attribution.methods.attention_average import Maps, average_on_grid
from wordlight.attribution.methods.by_stream import ByStream
from wordlight.attribution.options import list_of, number, whole
from wordlight.attribution.question import Answer, Question, Size
from wordlight.attribution.words import PromptWords, WordPlace
from wordlight.backends.attention import AttentionMeans, AttentionQuery
from wordlight.backends.backend import Backend, Evaluations
from wordlight.backends.trajectory import Trajectory

#: A layer's name and the number of one of its heads.
Head = tuple[str, int]
#: How well a word's map finds a mask ``(height, width)``; more is better.
Measure = Callable[[WordMap, npt.NDArray[np.bool_]], float]


class HeadSelection(ByStream):
    """DAAM over a share of the heads, those most relevant to the word (after Selective
    Aggregation, arXiv 2604.05906, which keeps the top 20 to 25 % of heads a concept).

    A head is a (layer, head) pair. The chosen ones' maps, averaged over steps, are upscaled,
    averaged with equal weight and clamped at zero, as in DAAM.

    From the paper come the idea and the share. The paper ranks heads by head relevance vectors
    (Park et al. 2024, arXiv 2412.02237), counted over many images for a vocabulary of concepts.
    The default here is our own and needs neither vocabulary, masks nor another image: a head's
    relevance to a word is how much more attention the word gets where the head looks for it than
    on the average over the image, Σ_p A_p² / Σ_p A_p - mean_p A_p, that is variance over mean of
    the head's map A (the mean over steps and the word's tokens). It is zero for a constant map,
    and small for a head that hardly attends to the word. It was taken among eleven such measures
    for its average precision on the 20 nouns of 24 calibration images of the first embedded model,
    too few to tell near ones apart. Each word has its own heads, so words' maps are not on one
    scale.

    With ``heads`` the heads are fixed, the same for every word: ``rank_heads`` ranks them by how
    well they find masks, which may be looked at in images of a calibration split only.

    Cost at a step: one forward pass; all heads' maps are held, on their own grids.

    Args:
        backend: the model.
        steps: the steps; all where None.
        share: of all heads, how many are kept: above 0, up to 1. At least one is.
        heads: ``[(layer, head), ...]`` in place of ``share``.

    Raises:
        ValueError: a share outside 0..1, no heads or one twice; heads that the model hasn't (when
            asked).
    """

    name: ClassVar[str] = "head-selection"
    question: ClassVar[str] = "Where do the heads look that look for this word?"
    family: ClassVar[Literal["attention"]] = "attention"
    needs: ClassVar[frozenset[str]] = frozenset({"attention"})
    paper: ClassVar[str] = "after arXiv 2604.05906"

    share: float = 0.25
    heads: Sequence[Head] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.share = number("share", self.share)
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {self.share}")
        self.heads = None if self.heads is None else _checked(self.heads)

    def cost(self, size: Size) -> Evaluations:
        return Evaluations(forward=size.steps)

    def _attribute(self, question: Question) -> Answer:
        means = self.backend.attention(question.trajectory, self._query(), question.steps)
        heads = _heads(means)
        grid = question.trajectory.grid
        maps = [
            _map_over(means, self._chosen(means, heads, player.tokens), player.tokens, grid)
            for player in question.players
        ]
        return Answer(xr.DataArray(np.stack(maps), dims=("word", "y", "x")))

    def _chosen(self, means: AttentionMeans, heads: list[Head], tokens: Sequence[int]) -> list[int]:
        """Return the indices of the means that are averaged for a word."""
        if self.heads is not None:
            return [_place(heads, head) for head in self.heads]
        found = [relevance(mean.values[list(tokens)].mean(axis=0)) for mean in means.means]
        # The first of equals, in the model's order.
        order = np.argsort(-np.array(found), kind="stable")
        return [int(place) for place in order[: max(1, round(self.share * len(heads)))]]

    def _query(self) -> AttentionQuery:
        layers = None
        if self.heads is not None:
            layers = tuple(dict.fromkeys(layer for layer, _ in self.heads))
        return AttentionQuery(layers=layers, keep=("layer", "head"))


def relevance(attention: npt.NDArray[Any]) -> float:
    """Return the variance of a map ``(y, x)`` over its mean, 0 or more, in units of the map: how
    much more attention it holds where it looks than on average. 0 for a map of zeros."""
    values = np.asarray(attention, np.float64)
    mean = float(values.mean())
    return float(values.var()) / mean if mean > 0 else 0.0


def rank_heads(
    backend: Backend,
    items: Iterable[tuple[Trajectory, Mapping[WordPlace, npt.NDArray[np.bool_]]]],
    measure: Measure,
    *,
    steps: int | tuple[int, ...] | None = None,
) -> dict[Head, float]:
    """Rank a model's heads by how well each alone finds masks, best first.

    For ``HeadSelection(heads=list(ranked)[:k])``. An honest choice looks at a calibration split,
    never at images that are judged afterwards.

    Args:
        backend: the model.
        items: trajectories, each with the masks ``(height, width)`` of some of its words.
        measure: of a word's map and its mask; more is better.
        steps: as in ``attribute``.

    Returns:
        The measure's mean over all words, by (layer, head); the first of equals first.

    Raises:
        ValueError: no word with a mask.
        KeyError: a word that isn't in its prompt.
    """
    values: dict[Head, list[float]] = {}
    for trajectory, masks in items:
        means = backend.attention(
            trajectory, AttentionQuery(keep=("layer", "head")), trajectory.at_steps(steps)
        )
        words = PromptWords.of(trajectory.tokens)
        for key, mask in masks.items():
            word = words.find(key)
            for place, head in enumerate(_heads(means)):
                own = _map_over(means, [place], word.tokens, trajectory.grid)
                word_map = WordMap(word, own.astype(np.float32), False, trajectory.image)
                values.setdefault(head, []).append(measure(word_map, mask))
    if not values:
        raise ValueError("no word with a mask was given: there is nothing to rank heads by")
    ranked = {head: float(np.mean(found)) for head, found in values.items()}
    return dict(sorted(ranked.items(), key=lambda item: -item[1]))


def _checked(heads: Sequence[Head]) -> tuple[Head, ...]:
    example = "[('mid_block.attentions.0', 3)]"
    found: list[Head] = []
    for one in list_of("heads", heads, example):
        pair = list_of("a head", one, "('mid_block.attentions.0', 3)")
        if len(pair) != 2 or not isinstance(pair[0], str):
            raise TypeError(f"heads must be pairs of layer and number, such as {example}: {one!r}")
        found.append((pair[0], whole("a head's number", pair[1], 0)))
    if not found or len(set(found)) != len(found):
        raise ValueError("heads must name at least one (layer, head), and none twice")
    return tuple(found)


def _heads(means: AttentionMeans) -> list[Head]:
    heads = []
    for mean in means.means:
        assert mean.layer is not None
        assert mean.head is not None
        heads.append((mean.layer, mean.head))
    return heads


def _place(heads: list[Head], wanted: Head) -> int:
    if wanted not in heads:
        there = ", ".join(f"({layer!r}, {head})" for layer, head in heads)
        raise ValueError(f"no head {wanted}; in its layer there are {there}")
    return heads.index(wanted)


def _map_over(
    means: AttentionMeans, places: Sequence[int], tokens: Sequence[int], grid: tuple[int, int]
) -> Maps:
    """A word's map ``(y, x)`` on the latent grid, over some of the means."""
    own = [means.means[place] for place in places]
    of_word = tuple(replace(mean, values=mean.values[list(tokens)]) for mean in own)
    maps, _ = average_on_grid(AttentionMeans(of_word), grid)
    merged: Maps = maps.clip(0).mean(axis=0)
    return merged
