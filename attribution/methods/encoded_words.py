"""Methods whose words need not be in the prompt: each is encoded by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from wordlight.attribution.attributor import partition
from wordlight.attribution.methods.by_stream import ByStream
from wordlight.attribution.options import list_of
from wordlight.attribution.question import Question, Size
from wordlight.attribution.step import embeddings_unchanged, encoding_tolerance
from wordlight.attribution.words import SPECIAL, PromptWords, Word, WordKey
from wordlight.backends.backend import Array
from wordlight.backends.tokens import Tokens
from wordlight.backends.trajectory import Trajectory

#: Contexts with names of their own.
CONTEXTS = {"alone": "{word}", "appended": "{prompt} {word}", "prompt": "a {word}"}


class EncodedWords(ByStream):
    """A method whose players are the prompt's and any other words that are asked for.

    Args:
        context: in what text a word is encoded: one with ``{word}``, and perhaps ``{prompt}``, in
            it, or a name of ``CONTEXTS``. With ``"prompt"`` the prompt's words keep the embeddings
            that they have there. ``"model"`` is the template that suits the model's text encoder
            (``Backend.word_template``).
        layers: names, or beginnings of names, of the layers that count; all where None.

    Raises:
        ValueError: a context without ``{word}``.
    """

    context: str = "a {word}"
    layers: Sequence[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers is not None:
            self.layers = list_of("layers", self.layers, "['up_blocks']")
        names = {**CONTEXTS, "model": self.backend.word_template}
        self._template = str(names.get(self.context, self.context))
        others = set(re.findall(r"{.*?}", self._template)) - {"{word}", "{prompt}"}
        if self._template.count("{word}") != 1 or others:
            raise ValueError(
                f"context must be {' or '.join(map(repr, names))}, or a text with '{{word}}' "
                f"once and perhaps '{{prompt}}' in it, not {self.context!r}"
            )

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
            if any(word.matches(key) for word in outside):
                raise ValueError(f"{key!r} is asked for twice")
            outside.append(Word.outside(key))
        return (*partition(of_prompt, inside), *outside)

    def size_of(self, trajectory: Trajectory, words: Sequence[WordKey] | None = None) -> Size:
        players = self.players(self._seen(trajectory).tokens, words)
        placed = [
            self._in_context(word, trajectory.prompt)[1] for word in self._encoded_alone(players)
        ]
        rows = self.backend.rows_for_words(trajectory, self._n_carried(players, placed))
        return replace(super().size_of(trajectory, words), carried=rows)

    def _n_carried(self, players: Sequence[Word], placed: Sequence[Sequence[int]]) -> int:
        """Return the number of tokens that go through the model beside the prompt."""
        return sum(map(len, placed))

    def _encoded_alone(self, players: Sequence[Word]) -> list[Word]:
        """The players that are encoded by themselves."""
        return [p for p in players if not p.in_prompt or (p.is_text and self.context != "prompt")]

    def _chosen_layers(self) -> tuple[str, ...] | None:
        """The layers that count, as an ``AttentionQuery`` takes them."""
        return None if self.layers is None else tuple(self.layers)

    def _check_encoding(self, question: Question) -> None:
        """Raise ValueError where the run's own words were encoded in another way than others
        would be (weighted, or by another layer of the encoder)."""
        backend, trajectory = self.backend, question.trajectory
        if trajectory.encoded_otherwise is None:
            return
        made = backend.encode([trajectory.prompt]).embeddings
        own = backend.asarray(trajectory.embeddings[None])
        if not embeddings_unchanged(made, own, encoding_tolerance(backend, trajectory)):
            raise ValueError(
                f"{self.name} encodes words as the text encoder encodes the prompt alone; this "
                "run's embeddings are others (weighted, edited, or of another layer: clip_skip)"
            )

    def _encoded(self, question: Question) -> dict[Word, Array]:
        """The embeddings ``(tokens, channels)`` of each player that is encoded by itself."""
        prompt = question.trajectory.prompt
        texts = self._encoded_alone(question.players)
        placed = {word: self._in_context(word, prompt) for word in texts}
        encoded: dict[Word, Array] = {}
        for start in range(0, len(texts), question.batch_size):
            batch = texts[start : start + question.batch_size]
            embeddings = self.backend.encode([placed[word][0] for word in batch]).embeddings
            for row, word in enumerate(batch):
                encoded[word] = embeddings[row, placed[word][1]]
        return encoded

    def _in_context(self, word: Word, prompt: str) -> tuple[str, list[int]]:
        """The text to encode for a word, and its tokens there."""
        before, after = (
            part.replace("{prompt}", prompt) for part in self._template.split("{word}")
        )
        alone = " ".join(prompt[a:b] for a, b in word.spans) or word.text
        text = before + alone + after
        start, stop = len(before), len(before) + len(alone)
        tokens = self.backend.tokenize(text)
        if self.stream is not None:
            tokens = tokens.only(self.stream)
        own = [
            position
            for position in tokens.positions("text")
            if tokens.offsets[position][0] < stop and tokens.offsets[position][1] > start
        ]
        if not own:
            raise ValueError(f"{word.text!r} has no token of its own in {text!r}")
        return text, own
