"""The images on which a method is tested: one for each thing that could go wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise

from wordlight.attribution.testing.model import ToyModel
from wordlight.attribution.words import PromptWords, Word
from wordlight.backends.backend import Backend
from wordlight.backends.tokens import PromptTooLongError
from wordlight.backends.trajectory import Trajectory

#: Short runs: what is tested doesn't depend on their length.
_STEPS = 2
_PLAIN = "a red circle above a blue square"
_REPEATED = "a red circle and a blue circle"
#: One of these has a word of several tokens, whatever the tokenizer.
_RARE = ("a turquoise circle", "a zyzzogeton circle", "a qqxvzwj circle")


class Specimens:
    """Trajectories of one backend.

    What the given ones don't show is drawn.

    Args:
        backend: the model; the numpy one where None.
        trajectories: of images of this model.

    Raises:
        ValueError: where asked for a specimen that isn't given, on a backend that can't draw.
    """

    def __init__(
        self, backend: Backend | None = None, trajectories: Sequence[Trajectory] | None = None
    ) -> None:
        self.backend = backend or ToyModel()
        self.given = tuple(trajectories or ())

    @cached_property
    def plain(self) -> Trajectory:
        """A run of a prompt of three words or more, two neighbours of which occur once."""
        return self._found("two words side by side", lambda t: bool(_pairs(t)), (_PLAIN,))

    @cached_property
    def one_word(self) -> Trajectory:
        """A run of a prompt of one word."""
        return self._found("one word", lambda t: len(words_of(t)) == 1, ("circle",))

    @cached_property
    def repeated(self) -> Trajectory:
        """A run of a prompt with a word twice."""
        return self._found(
            "a repeated word", lambda t: any(w.occurrence for w in words_of(t)), (_REPEATED,)
        )

    @cached_property
    def pieces(self) -> Trajectory:
        """A run of a prompt with a word of several tokens, and a phrase that has it."""
        return self._found(
            "a word of several tokens beside another",
            lambda t: any(len(w.tokens) > 1 for pair in _pairs(t) for w in pair),
            _RARE,
        )

    @cached_property
    def oblong(self) -> Trajectory:
        """A run on a latent grid that is no square."""
        side = "an image that is no square"

        def fits(trajectory: Trajectory) -> bool:
            return trajectory.grid[0] != trajectory.grid[1]

        if any(fits(t) for t in self.given) or "sample" not in self.backend.capabilities:
            return self._found(side, fits, ())
        facts = self.backend.sampling
        wide = facts.height * 3 // 2 // facts.multiple * facts.multiple
        return self.backend.sample(_PLAIN, steps=_STEPS, height=facts.height, width=wide)

    @cached_property
    def unguided(self) -> Trajectory:
        """Drawn without guidance, so without a negative prompt."""

        def fits(trajectory: Trajectory) -> bool:
            return trajectory.negative_embeddings is None

        if any(fits(t) for t in self.given) or "sample" not in self.backend.capabilities:
            return self._found("an image drawn without guidance", fits, ())
        return self.backend.sample(_PLAIN, steps=_STEPS, guidance_scale=1.0)

    @cached_property
    def batch(self) -> list[Trajectory]:
        """Three prompts of different lengths."""
        return [self.one_word, self.repeated, self.pieces]

    def _found(
        self, what: str, fits: Callable[[Trajectory], bool], prompts: Sequence[str]
    ) -> Trajectory:
        for trajectory in self.given:
            if fits(trajectory):
                return trajectory
        if "sample" not in self.backend.capabilities:
            raise ValueError(
                f"no trajectory with {what} is among those given, and this backend can't draw one: "
                "add one"
            )
        for prompt in prompts:
            try:
                drawn = self.backend.sample(prompt, steps=_STEPS)
            except PromptTooLongError:
                continue
            if fits(drawn):
                return drawn
        raise ValueError(
            f"none of {', '.join(map(repr, prompts))} has {what} for this model's tokenizer: give "
            "a trajectory that has"
        )


def words_of(trajectory: Trajectory) -> tuple[Word, ...]:
    """The words of a trajectory's prompt."""
    return PromptWords.of(trajectory.tokens).words


def phrase_of(trajectory: Trajectory) -> tuple[str, tuple[Word, Word]]:
    """Two neighbouring words that occur once, the longest in tokens: their text, and they."""
    first, second = max(_pairs(trajectory), key=lambda pair: len(pair[0].tokens + pair[1].tokens))
    return trajectory.prompt[first.start : second.stop], (first, second)


def _pairs(trajectory: Trajectory) -> list[tuple[Word, Word]]:
    words = words_of(trajectory)
    texts = [word.text.lower() for word in words]
    return [
        (one, two)
        for one, two in pairwise(words)
        if len(words) > 2 and texts.count(one.text.lower()) == texts.count(two.text.lower()) == 1
    ]
