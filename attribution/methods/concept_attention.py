"""Concept attention: places whose attention output is like that of a word beside the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr
from array_api_compat import array_namespace

from wordlight.attribution.methods.attention_average import average_on_grid, merge_tokens
from wordlight.attribution.methods.encoded_words import EncodedWords
from wordlight.attribution.options import one_of
from wordlight.attribution.question import Answer, Question, Size
from wordlight.attribution.words import Word
from wordlight.backends.attention import AttentionMean, AttentionMeans, AttentionQuery
from wordlight.backends.backend import Array, Evaluations

#: What is averaged: products of outputs, or what a softmax over words makes of them.
Scores = Literal["product", "softmax"]


class ConceptAttention(EncodedWords):
    """The similarity of a word's and a place's outputs of joint attention (ConceptAttention,
    Helbling et al. 2025, arXiv 2502.04320).

    Each word is encoded by itself, and its tokens go through the model's own text stream beside the
    prompt's: they attend to each other and to the picture, and nothing attends to them, so that the
    run is what it was. At each joint layer the map is ``⟨o_word, o_place⟩``, with o the outputs A·V
    of a head, averaged over heads, layers, steps and the word's tokens. ``<start>``, ``<end>`` and
    the like, which are no words, have the prompt's own outputs.

    The paper leaves single-stream layers out, takes layers 10 to 18 of FLUX.1, and puts a softmax
    over the words between: ``scores="softmax"``. Words may be any, in the prompt or not:
    ``attribute(trajectory, words=["dog", "background"])``.

    Cost at a step: two forward passes, three or more where the prompt has few places for many
    words; before, the text encoder once a word.

    Args:
        backend: the model.
        steps: the steps; all where None.
        context: in what text a word is encoded; ``"alone"``, the word as the whole text, is the
            paper's. With ``"prompt"`` the prompt's words go in with the embeddings that they have
            there. See ``OpenVocabulary``.
        scores: ``"product"``, which may be below zero, or ``"softmax"``: at each layer and step the
            word's share of the exponentials of the products, summed over heads, among the words
            asked about; a special position is set against these.
        layers: names, or beginnings of names, of the layers that count; all where None.

    Raises:
        ValueError: a context without ``{word}``; a word asked for twice (when asked).
        PromptTooLongError: a word that doesn't fit into the encoder's context with the text around
            it (when asked).
    """

    name: ClassVar[str] = "concept-attention"
    question: ClassVar[str] = (
        "Which places have an attention output like that of a word which is carried "
        "through the model beside the prompt?"
    )
    family: ClassVar[Literal["attention"]] = "attention"
    needs: ClassVar[frozenset[str]] = frozenset({"concept_attention", "encode"})
    signed: ClassVar[bool] = True
    paper: ClassVar[str] = "Helbling et al. 2025, arXiv 2502.04320"

    context: str = "alone"
    scores: Scores = "product"

    def __post_init__(self) -> None:
        super().__post_init__()
        if one_of("scores", self.scores, get_args(Scores)) == "softmax":
            self.signed = False  # type: ignore[misc]

    def cost(self, size: Size) -> Evaluations:
        return Evaluations(forward=(1 + size.carried) * size.steps)

    def _n_carried(self, players: Sequence[Word], placed: Sequence[Sequence[int]]) -> int:
        kept = sum(len(p.tokens) for p in players if p.is_text and self.context == "prompt")
        return kept + super()._n_carried(players, placed)

    def _attribute(self, question: Question) -> Answer:
        query = AttentionQuery(
            self._chosen_layers(), keep=("layer",) if self.scores == "softmax" else ()
        )
        trajectory = question.trajectory
        total = np.zeros((len(question.players), *trajectory.grid))
        with self.backend.no_gradients():
            self._check_encoding(question)
            concepts, positions = self._concepts(question)
            for step in question.progress(question.steps):
                found = self.backend.concept_attention(trajectory, query, (step,), concepts)
                merged = [replace(mean, values=_merged(mean, positions)) for mean in found.means]
                if self.scores == "softmax":
                    merged = [_shares(mean, question.players) for mean in merged]
                total += average_on_grid(AttentionMeans(tuple(merged)), trajectory.grid)[0]
        maps = total / len(question.steps)
        kept = maps if self.signed else maps.clip(0)
        return Answer(xr.DataArray(kept, dims=("word", "y", "x")))

    def _concepts(self, question: Question) -> tuple[Array, list[list[int]]]:
        """The embeddings of all words, and where each player is among the prompt's tokens and
        these."""
        own = self.backend.asarray(question.trajectory.embeddings)
        encoded = self._encoded(question)
        parts: list[Array] = [own[:0]]
        positions: list[list[int]] = []
        count = len(question.trajectory.tokens)
        for player in question.players:
            if not _is_word(player):
                positions.append(list(player.tokens))
                continue
            parts.append(encoded[player] if player in encoded else own[list(player.tokens)])
            positions.append(list(range(count, count + len(parts[-1]))))
            count += len(parts[-1])
        return array_namespace(own).concat(parts, axis=0), positions


def _merged(mean: AttentionMean, positions: list[list[int]]) -> npt.NDArray[np.float32]:
    return merge_tokens(mean.values.astype(np.float64), positions).astype(np.float32)


def _is_word(player: Word) -> bool:
    return player.is_text or not player.in_prompt


def _shares(mean: AttentionMean, players: Sequence[Word]) -> AttentionMean:
    """A layer's maps of the players as shares of the exponentials of the words'."""
    # The mean over heads, times their number.
    products = mean.values.astype(np.float64) * mean.count
    powers = np.exp(products - products.max(axis=0))
    words = np.array([_is_word(player) for player in players])
    among = powers[words].sum(axis=0)
    beside = np.where(words[:, None, None], among, among + powers)
    return replace(mean, values=(powers / np.maximum(beside, 1e-300)).astype(np.float32))
