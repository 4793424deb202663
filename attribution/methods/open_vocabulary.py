"""Open vocabulary: attention of an image's places to words that need not be in its prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, TypeGuard, get_args

import numpy as np
import xarray as xr
from array_api_compat import array_namespace

from wordlight.attribution.methods.attention_average import average_on_grid, merge_tokens
from wordlight.attribution.methods.encoded_words import EncodedWords
from wordlight.attribution.methods.token_fitting import load_tokens
from wordlight.attribution.options import list_of, one_of
from wordlight.attribution.question import Answer, Question, Size
from wordlight.attribution.words import Word
from wordlight.backends.attention import AttentionQuery, OtherKeys
from wordlight.backends.backend import Array, Evaluations

#: What is averaged: shares of the softmax, or the scores before it.
Scores = Literal["share", "raw"]


class OpenVocabulary(EncodedWords):
    """The attention of the image's places to any word, in the prompt or not: their queries against
    the keys of the word's embedding (OVAM, Marcos-Manchón et al. 2024, arXiv 2403.14291).

    The run stays as it was; the word is encoded by itself and its score is what it would get from
    the softmax if it stood in the prompt: in its own place where the prompt has it, else beside the
    prompt's tokens. So scores are probabilities, from 0 to 1, a token whose embedding is the
    prompt's gets its own, and maps are on DAAM's scale. (OVAM takes the scores as they are, or a
    softmax over the words asked for.) Layers, heads, steps and a word's tokens are averaged as in
    DAAM.

    ``attribute(trajectory, words=["dog", "red car"])`` gives maps of these and of the rest of the
    prompt. Words of the prompt, too, are encoded by themselves; ``<start>``, ``<end>`` and
    ``<pad>``, which are no text, have the prompt's own embeddings, and so DAAM's maps. Words that
    are asked for as one player are encoded side by side.

    A word's embedding depends on the text around it, so such a map is not that of the same word in
    its sentence: docs/methods/open-vocabulary.md says how near each context comes to DAAM's maps on
    the embedded model.

    Cost at a step: one forward pass, two on a transformer, which takes the words along in a row of
    their own (three or more where the prompt has few places for many words); before, the text
    encoder once a word.

    Args:
        backend: the model.
        steps: the steps; all where None.
        context: in what text a word is encoded: one with ``{word}``, and perhaps ``{prompt}``, in
            it. ``"alone"`` is ``"{word}"``, the word as the whole text; ``"appended"`` is
            ``"{prompt} {word}"``, so that it hears of the others. With ``"prompt"`` the prompt's
            words keep the embeddings that they have there, so that their maps are DAAM's, and
            others are encoded as ``"a {word}"``. ``"model"`` takes the template that suits the
            model's text encoder: ``"a photo of a {word}"`` for CLIP's.
        scores: ``"share"`` of the softmax, or ``"raw"``: QKᵀ·scale as OVAM takes it, which may be
            below zero.
        layers: names, or beginnings of names, of the layers that count; all where None.
        tokens: embeddings to take for some words, by text, such as ``fit_token`` fits to masks, or
            the file to which ``save_tokens`` wrote them; a row with such is one that has seen
            masks.

    Raises:
        ValueError: a context without ``{word}``, tokens that are no lists of numbers; a word asked
            for twice, tokens of another number of channels than the model's (when asked).
        FileNotFoundError, FileFormatError: a file of tokens that isn't there, or isn't one.
        PromptTooLongError: a word that doesn't fit into the encoder's context with the text around
            it (when asked).
    """

    name: ClassVar[str] = "open-vocabulary"
    question: ClassVar[str] = "Where would the image look at a word that is not in the prompt?"
    family: ClassVar[Literal["attention"]] = "attention"
    needs: ClassVar[frozenset[str]] = frozenset({"attention", "attention_keys", "encode"})
    paper: ClassVar[str] = "Marcos-Manchón et al. 2024, arXiv 2403.14291"

    scores: Scores = "share"
    tokens: Mapping[str, Sequence[float]] | str | Path | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens is not None:
            given = self.tokens
            self.tokens = _checked(load_tokens(Path(given)) if _is_file(given) else given)
        if one_of("scores", self.scores, get_args(Scores)) == "raw":
            self.backend.require(frozenset({"attention_measures"}), f"{self.name} of raw scores")
            self.needs = self.needs | {"attention_measures"}  # type: ignore[misc]
            self.signed = True  # type: ignore[misc]

    def cost(self, size: Size) -> Evaluations:
        rows = 1 + (size.carried if self.backend.carries_words else 0)
        return Evaluations(forward=size.steps * rows)

    def _attribute(self, question: Question) -> Answer:
        trajectory = question.trajectory
        with self.backend.no_gradients():
            self._check_encoding(question)
            keys, positions = self._keys(question)
            query = AttentionQuery(
                layers=self._chosen_layers(),
                measure="scores" if self.scores == "raw" else "probabilities",
            )
            means = self.backend.attention(trajectory, query, question.steps, keys)
        maps, _ = average_on_grid(means, trajectory.grid)
        kept = maps if self.signed else maps.clip(0)
        return Answer(xr.DataArray(merge_tokens(kept, positions), dims=("word", "y", "x")))

    def _encoded_alone(self, players: Sequence[Word]) -> list[Word]:
        return [word for word in super()._encoded_alone(players) if self._token_of(word) is None]

    def _n_carried(self, players: Sequence[Word], placed: Sequence[Sequence[int]]) -> int:
        given = sum(self._token_of(player) is not None for player in players)
        return given + super()._n_carried(players, placed)

    @property
    def saw_masks(self) -> bool:
        return self.tokens is not None

    def _token_of(self, word: Word) -> Sequence[float] | None:
        """The embedding that was given for a word."""
        given = self.tokens if isinstance(self.tokens, Mapping) else {}
        return next((token for text, token in given.items() if word.matches(text)), None)

    def _given(self, question: Question) -> dict[Word, Array]:
        """The embeddings ``(1, channels)`` that were given for players."""
        channels = question.trajectory.embeddings.shape[1]
        found: dict[Word, Array] = {}
        for word in question.players:
            token = self._token_of(word)
            if token is None:
                continue
            if len(token) != channels:
                raise ValueError(
                    f"the token for {word.text!r} has {len(token)} channels, and the model's text "
                    f"embeddings have {channels}"
                )
            found[word] = self.backend.asarray(np.array([token]))
        return found

    def _keys(self, question: Question) -> tuple[OtherKeys, list[tuple[int, ...]]]:
        """The players' embeddings, each in its place, and which of them are whose."""
        trajectory = question.trajectory
        own = trajectory.embeddings
        xp = array_namespace(self.backend.asarray(own))
        encoded = {**self._encoded(question), **self._given(question)}
        parts: list[Array] = []
        positions: list[tuple[int, ...]] = []
        of_prompt: list[int | None] = []
        count = 0
        for player in question.players:
            if player in encoded:
                parts.append(encoded[player])
                of_prompt += [None] * int(parts[-1].shape[0])
            else:
                parts.append(self.backend.asarray(own[list(player.tokens)]))
                of_prompt += player.tokens
            positions.append(tuple(range(count, count + parts[-1].shape[0])))
            count += parts[-1].shape[0]
        places = [player.tokens for player in question.players]
        words = zip(positions, places, strict=True)
        keys = OtherKeys.of(xp.concat(parts, axis=0), words, own.shape[0], of_prompt)
        return keys, positions


def _is_file(tokens: object) -> TypeGuard[str | Path]:
    return isinstance(tokens, str | Path)


def _checked(tokens: object) -> dict[str, tuple[float, ...]]:
    if not isinstance(tokens, Mapping):
        raise TypeError(f"tokens must be embeddings by word, such as {{'dog': [...]}}: {tokens!r}")
    checked = {
        str(word): tuple(float(value) for value in list_of("a token", token, "[0.1, -0.2, ...]"))
        for word, token in tokens.items()
    }
    if wrong := [word for word, token in checked.items() if not np.isfinite(token).all()]:
        raise ValueError(f"the token for {wrong[0]!r} has numbers that are not finite")
    return checked
