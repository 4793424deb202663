"""GramCol: places whose attention output is like that of the place that fits the word best."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal, get_args

import numpy as np
import xarray as xr

from wordlight.attribution.methods.attention_average import average_on_grid, merge_words
from wordlight.attribution.methods.by_stream import ByStream
from wordlight.attribution.options import one_of
from wordlight.attribution.question import Answer, Question, Size
from wordlight.backends.attention import AttentionMean, AttentionMeans, AttentionQuery
from wordlight.backends.backend import Evaluations
from wordlight.backends.measures import Measure
from wordlight.backends.tokens import Tokens

#: How two outputs are compared.
Similarity = Literal["cosine", "product"]
#: Which tokens a map is standardised over.
Standardize = Literal["context", "words"]
#: Least deviation that maps are divided by, as a share of their size: below it rounding shows.
_ALIKE = 1e-4
_MEASURES: dict[str, Measure] = {"cosine": "output-cosine", "product": "output-product"}


class GramCol(ByStream):
    """A column of the Gram matrix of an attention layer's outputs, that of the place at which the
    word's key is matched best (IMAP, CVPR 2026, arXiv 2603.02919).

    With o the outputs A·V of a head at each place, ``p* = argmax_p q_p · k_t`` for token t, the map
    is ``g_t(p) = o_p* · o_p``. At each place it is standardised over tokens (their mean taken off,
    divided by their standard deviation), and heads, layers and steps are averaged, upscaled to the
    latent grid. So a place is high for a word when it is more like that word's best place than like
    the best places of others; below zero it is less so.

    The paper has it for joint attention of images and videos. In cross-attention outputs mix the
    values of the text alone; ours are the ``"cosine"`` in place of the product, and that all layers
    and heads count alike.

    Cost at a step: one forward pass; the maps of all heads are held, on their own grids.

    Args:
        backend: the model.
        steps: the steps; all where None.
        similarity: ``"cosine"``, or ``"product"`` as in the paper.
        standardize: over all positions of the ``"context"``, over the tokens of the prompt's
            ``"words"`` (prompts of one token stay as they are), or not at all (None).
    """

    name: ClassVar[str] = "gramcol"
    question: ClassVar[str] = (
        "Which places have a layer output like that of the place which fits the word best?"
    )
    family: ClassVar[Literal["attention"]] = "attention"
    needs: ClassVar[frozenset[str]] = frozenset({"attention", "attention_measures"})
    signed: ClassVar[bool] = True
    by_token: ClassVar[bool] = True
    paper: ClassVar[str] = "IMAP, CVPR 2026, arXiv 2603.02919"

    similarity: Similarity = "cosine"
    standardize: Standardize | None = "context"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("similarity", self.similarity, get_args(Similarity))
        if self.standardize is not None:
            one_of("standardize", self.standardize, get_args(Standardize))

    def cost(self, size: Size) -> Evaluations:
        return Evaluations(forward=size.steps)

    def _attribute(self, question: Question) -> Answer:
        trajectory = question.trajectory
        query = AttentionQuery(keep=("layer", "head"), measure=_MEASURES[self.similarity])
        total = np.zeros((len(trajectory.tokens), *trajectory.grid))
        columns = self.backend.attention_by_step(trajectory, query, question.steps)
        for _, found in zip(question.progress(question.steps), columns, strict=True):
            means = tuple(self._standardized(mean, trajectory.tokens) for mean in found.means)
            total += average_on_grid(AttentionMeans(means), trajectory.grid)[0]
        maps = merge_words(total / len(question.steps), question.players)
        return Answer(xr.DataArray(maps, dims=("word", "y", "x")))

    def _standardized(self, mean: AttentionMean, tokens: Tokens) -> AttentionMean:
        """A head's maps with a mean of 0 and a deviation of 1 over tokens, at each place."""
        if self.standardize is None:
            return mean
        over = list(
            range(len(tokens)) if self.standardize == "context" else tokens.positions("text")
        )
        if len(over) < 2:
            return mean
        values = mean.values.astype(np.float64)
        centred = values - values[over].mean(axis=0)
        # Where all tokens are alike no word stands out.
        least = _ALIKE * max(float(np.abs(values).max()), 1e-30)
        scaled = centred / np.maximum(values[over].std(axis=0), least)
        return replace(mean, values=scaled.astype(np.float32))
