"""Open vocabulary: attention of an image's places to words that need not be in its prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import xarray as xr
from array_api_compat import array_namespace

from wordlight.attribution.attributor import TextImageAttributor, partition
from wordlight.attribution.methods.attention_average import average_on_grid, merge_tokens
from wordlight.attribution.options import list_of, one_of
from wordlight.attribution.question import Answer, Question, Size
from wordlight.attribution.step import alike, encoding_tolerance
from wordlight.attribution.words import SPECIAL, PromptWords, Word, WordKey
from wordlight.backends.attention import AttentionQuery, OtherKeys
from wordlight.backends.backend import Array, Evaluations
from wordlight.backends.tokens import Tokens

#: Contexts with names of their own.
CONTEXTS = {"alone": "{word}", "appended": "{prompt} {word}", "prompt": "a {word}"}
#: What is averaged: shares of the softmax, or the scores before it.
Scores = Literal["share", "raw"]


class OpenVocabulary(TextImageAttributor):
    """How much the image's places attend to any word, in the prompt or not: their queries against
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

    Cost at a step: one forward pass; before, the text encoder once a word.

    Args:
        backend: the model.
        steps: which steps; all where None.
        context: in what text a word is encoded: one with ``{word}``, and perhaps ``{prompt}``, in
            it. ``"alone"`` is ``"{word}"``, the word as the whole text; ``"appended"`` is
            ``"{prompt} {word}"``, so that it hears of the others. With ``"prompt"`` the prompt's
            words keep the embeddings that they have there, so that their maps are DAAM's, and
            others are encoded as ``"a {word}"``.
        scores: ``"share"`` of the softmax, or ``"raw"``: QKᵀ·scale as OVAM takes it, which may be
            below zero.
        layers: names, or beginnings of names, of the layers that count; all where None.

    Raises:
        ValueError: a context without ``{word}``; a word asked for twice (when asked).
        PromptTooLongError: a word that doesn't fit into the encoder's context with the text around
            it (when asked).
    """

    name: ClassVar[str] = "open-vocabulary"
    family: ClassVar[Literal["attention"]] = "attention"
    needs: ClassVar[frozenset[str]] = frozenset({"attention", "attention_keys", "encode"})
    paper: ClassVar[str] = "Marcos-Manchón et al. 2024, arXiv 2403.14291"

    context: str = "a {word}"
    scores: Scores = "share"
    layers: Sequence[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if one_of("scores", self.scores, get_args(Scores)) == "raw":
            self.backend.require(frozenset({"attention_measures"}), f"{self.name} of raw scores")
            self.needs = self.needs | {"attention_measures"}  # type: ignore[misc]
            self.signed = True  # type: ignore[misc]
        if self.layers is not None:
            self.layers = list_of("layers", self.layers, "['up_blocks']")
        self._template = str(CONTEXTS.get(self.context, self.context))
        others = set(re.findall(r"{.*?}", self._template)) - {"{word}", "{prompt}"}
        if self._template.count("{word}") != 1 or others:
            raise ValueError(
                f"context must be {' or '.join(map(repr, CONTEXTS))}, or a text with '{{word}}' "
                f"once and perhaps '{{prompt}}' in it, not {self.context!r}"
            )

    def cost(self, size: Size) -> Evaluations:
        return Evaluations(forward=size.steps)

    def players(self, tokens: Tokens, words: Sequence[WordKey] | None) -> tuple[Word, ...]:
        """The prompt's players, and the words asked for that it doesn't have."""
        if words is None or isinstance(words, str):
            return super().players(tokens, words)
        of_prompt = PromptWords.of(tokens)
        special = {*SPECIAL, *(word.text for word in of_prompt.specials)}
        inside: list[WordKey] = []
        outside: list[Word] = []
        for key in words:
            if not isinstance(key, str) or key in special or of_prompt.occurrences(key):
                inside.append(key)
                continue
            if any(word.reads(key) for word in outside):
                raise ValueError(f"{key!r} is asked for twice")
            outside.append(Word.outside(key))
        return (*partition(of_prompt, inside), *outside)

    def _attribute(self, question: Question) -> Answer:
        trajectory = question.trajectory
        with self.backend.no_gradients():
            self._check_encoding(question)
            keys, positions = self._keys(question)
            query = AttentionQuery(
                layers=None if self.layers is None else tuple(self.layers),
                measure="scores" if self.scores == "raw" else "probabilities",
            )
            means = self.backend.attention(trajectory, query, question.steps, keys)
        maps, _ = average_on_grid(means, trajectory.grid)
        kept = maps if self.signed else maps.clip(0)
        return Answer(xr.DataArray(merge_tokens(kept, positions), dims=("word", "y", "x")))

    def _check_encoding(self, question: Question) -> None:
        """Raise ValueError where the run's own words were encoded in another way than others
        would be (weighted, or by another layer of the encoder)."""
        backend, trajectory = self.backend, question.trajectory
        if trajectory.encoded_otherwise is None:
            return
        made = backend.encode([trajectory.prompt]).embeddings
        own = backend.asarray(trajectory.embeddings[None])
        if not alike(made, own, encoding_tolerance(backend, trajectory)):
            raise ValueError(
                "open-vocabulary encodes words as the text encoder encodes the prompt alone; this "
                "run's embeddings are others (weighted, edited, or of another layer: clip_skip)"
            )

    def _keys(self, question: Question) -> tuple[OtherKeys, list[tuple[int, ...]]]:
        """The players' embeddings, each in its place, and which of them are whose."""
        trajectory = question.trajectory
        own = trajectory.embeddings
        xp = array_namespace(self.backend.asarray(own))
        texts = [p for p in question.players if p.is_text or not p.in_prompt]
        if self.context == "prompt":
            texts = [p for p in texts if not p.in_prompt]
        placed = {word: self._in_context(word, trajectory.prompt) for word in texts}
        encoded: dict[Word, Array] = {}
        for start in range(0, len(texts), question.batch_size):
            batch = texts[start : start + question.batch_size]
            embeddings = self.backend.encode([placed[word][0] for word in batch]).embeddings
            for row, word in enumerate(batch):
                first, last = placed[word][1]
                encoded[word] = embeddings[row, first : last + 1]
        parts: list[Array] = []
        positions: list[tuple[int, ...]] = []
        count = 0
        for player in question.players:
            if player in encoded:
                parts.append(encoded[player])
            else:
                parts.append(self.backend.asarray(own[list(player.tokens)]))
            positions.append(tuple(range(count, count + parts[-1].shape[0])))
            count += parts[-1].shape[0]
        places = [player.tokens for player in question.players]
        words = zip(positions, places, strict=True)
        return OtherKeys.of(xp.concat(parts, axis=0), words, own.shape[0]), positions

    def _in_context(self, word: Word, prompt: str) -> tuple[str, tuple[int, int]]:
        """The text to encode for a word, and its first and last token there."""
        before, after = (
            part.replace("{prompt}", prompt) for part in self._template.split("{word}")
        )
        alone = " ".join(prompt[a:b] for a, b in word.spans) or word.text
        text = before + alone + after
        start, stop = len(before), len(before) + len(alone)
        tokens = self.backend.tokenize(text)
        own = [
            position
            for position in tokens.positions("text")
            if tokens.offsets[position][0] < stop and tokens.offsets[position][1] > start
        ]
        if not own:
            raise ValueError(f"{word.text!r} has no token of its own in {text!r}")
        return text, (own[0], own[-1])
