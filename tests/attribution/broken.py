"""Methods that break one rule each: what ``check_attributor`` is there to find."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import numpy as np
import xarray as xr

from wordlight.attribution import DAAM, Occlusion
from wordlight.attribution.attributor import partition
from wordlight.attribution.question import Answer, Question
from wordlight.attribution.testing.model import ToyModel
from wordlight.attribution.words import PromptWords, Word, WordKey
from wordlight.backends.attention import AttentionQuery
from wordlight.backends.backend import Array, Conditioning, Evaluations
from wordlight.backends.tokens import Tokens
from wordlight.backends.trajectory import Trajectory


class WrongShape(Occlusion):
    """Width before height."""

    name: ClassVar[str] = "wrong-shape"

    def _attribute(self, question: Question) -> Answer:
        maps = super()._attribute(question).maps
        return Answer(xr.DataArray(maps.values.swapaxes(1, 2), dims=("word", "y", "x")))


class WrongNumber(Occlusion):
    """No maps of the special positions."""

    name: ClassVar[str] = "wrong-number"

    def _attribute(self, question: Question) -> Answer:
        words = [i for i, player in enumerate(question.players) if player.stop > player.start]
        return Answer(super()._attribute(question).maps[words])


class NotFinite(Occlusion):
    """Divides by a map that is zero somewhere."""

    name: ClassVar[str] = "not-finite"

    def _attribute(self, question: Question) -> Answer:
        maps = super()._attribute(question).maps
        least = np.abs(maps.values).min(axis=0, keepdims=True)
        with np.errstate(all="ignore"):
            return Answer(maps.copy(data=maps.values / (least - least)))


class NotDeterministic(Occlusion):
    """Adds noise without a seed."""

    name: ClassVar[str] = "not-deterministic"

    def _attribute(self, question: Question) -> Answer:
        maps = super()._attribute(question).maps
        noise = np.random.default_rng().normal(scale=1e-3, size=maps.shape)
        return Answer(maps + noise)


class ChangesTheTrajectory(Occlusion):
    """Centres the latents in place; once they are, it changes no more."""

    name: ClassVar[str] = "changes-the-trajectory"

    def _attribute(self, question: Question) -> Answer:
        latents = question.trajectory.latents
        latents -= latents.mean(axis=(2, 3), keepdims=True).round(3)
        return super()._attribute(question)


class LeaksHooks(DAAM):
    """Listens to the model and stays."""

    name: ClassVar[str] = "leaks-hooks"

    def _attribute(self, question: Question) -> Answer:
        cast(ToyModel, self.backend).hooks.append(lambda *_heard: None)
        return super()._attribute(question)


class LeaksHooksOnError(DAAM):
    """Takes its hook away, but not when the model raises an error."""

    name: ClassVar[str] = "leaks-hooks-on-error"

    def _attribute(self, question: Question) -> Answer:
        hooks = cast(ToyModel, self.backend).hooks
        hooks.append(lambda *_heard: None)
        answer = super()._attribute(question)
        hooks.pop()
        return answer


class ReplacesAPrimitive(DAAM):
    """Puts its own function in the place of a primitive, once and for all."""

    name: ClassVar[str] = "replaces-a-primitive"

    def _attribute(self, question: Question) -> Answer:
        if "to_numpy" not in vars(self.backend):
            self.backend.to_numpy = np.asarray  # type: ignore[method-assign]
        return super()._attribute(question)


class SwallowsErrors(DAAM):
    """Gives empty maps where the model fails."""

    name: ClassVar[str] = "swallows-errors"

    def _attribute(self, question: Question) -> Answer:
        try:
            return super()._attribute(question)
        except RuntimeError:
            shape = (len(question.players), *question.trajectory.grid)
            return Answer(xr.DataArray(np.zeros(shape), dims=("word", "y", "x")))


class IgnoresWords(Occlusion):
    """Answers about every word, whatever was asked for."""

    name: ClassVar[str] = "ignores-words"

    def players(self, tokens: Tokens, words: Sequence[WordKey] | None) -> tuple[Word, ...]:
        return partition(PromptWords.of(tokens), None)


class SumsTokens(DAAM):
    """Adds up the attention to a word's tokens, where ``merge`` says that it is their mean."""

    name: ClassVar[str] = "sums-tokens"

    def _attribute(self, question: Question) -> Answer:
        maps = super()._attribute(question).maps
        sizes = np.array([len(player.tokens) for player in question.players], float)
        return Answer(maps * xr.DataArray(sizes, dims=("word",)))


class SumsTokensUnsaid(SumsTokens):
    """The same, written without a thought of ``by_token``."""

    name: ClassVar[str] = "sums-tokens-unsaid"
    by_token: ClassVar[bool] = False


class SumsPhrases(Occlusion):
    """Says that a phrase's map is the mean of its words', and hands out maps that add up."""

    name: ClassVar[str] = "sums-phrases"

    def attribute(self, *args: Any, **options: Any) -> Any:
        answer = super().attribute(*args, **options)
        for maps in answer if isinstance(answer, list) else [answer]:
            maps.merge = "mean"
        return answer


class ForgetsItsCost(Occlusion):
    """Asks the model past the counters."""

    name: ClassVar[str] = "forgets-its-cost"

    def _cost_at_step(self, size: Any) -> Evaluations:
        return Evaluations(forward=-2)

    def _attribute(self, question: Question) -> Answer:
        before = self.backend.evaluations
        self.backend.evaluations = Evaluations()
        try:
            return super()._attribute(question)
        finally:
            self.backend.evaluations = before


class CallsPastTheCounters(Occlusion):
    """Asks for one more prediction by the private name."""

    name: ClassVar[str] = "calls-past-the-counters"

    def _attribute(self, question: Question) -> Answer:
        trajectory = question.trajectory
        latents = self.backend.asarray(trajectory.latents[:1])
        embeddings = self.backend.asarray(trajectory.embeddings[None])
        self.backend._denoise(latents, float(trajectory.timesteps[0]), Conditioning(embeddings))
        return super()._attribute(question)


class RunsTheModelItself(Occlusion):
    """Reaches into the backend for the layers."""

    name: ClassVar[str] = "runs-the-model-itself"

    def _attribute(self, question: Question) -> Answer:
        model, trajectory = cast(ToyModel, self.backend), question.trajectory
        model._passes(model._looks(trajectory.latents[0], 500.0), trajectory.embeddings)
        return super()._attribute(question)


class NeedsMoreThanItSays(Occlusion):
    """Asks for attention too, without saying so."""

    name: ClassVar[str] = "needs-more-than-it-says"

    def _cost_at_step(self, size: Any) -> Evaluations:
        return Evaluations(forward=size.players + 1)

    def _attribute(self, question: Question) -> Answer:
        self.backend.attention(question.trajectory, AttentionQuery(), question.steps)
        return super()._attribute(question)


class Underestimates(Occlusion):
    """Foresees the players' passes, and not those of the ends."""

    name: ClassVar[str] = "underestimates"

    def cost(self, size: Any) -> Evaluations:
        return Evaluations(forward=size.steps * size.players)


class NotAsSigned(Occlusion):
    """Says that it has no values below zero."""

    name: ClassVar[str] = "not-as-signed"
    signed: ClassVar[bool] = False


class ForgetsAnOption(Occlusion):
    """An option that changes the answer and is in no settings."""

    name: ClassVar[str] = "forgets-an-option"

    gain: float = 1.0

    def settings(self) -> dict[str, Any]:
        return {name: value for name, value in super().settings().items() if name != "gain"}

    def _at_step(self, step: Any, players: tuple[Word, ...]) -> Array:
        return self.gain * super()._at_step(step, players)


class KeepsObjectsInSettings(Occlusion):
    """An option that can't be written down."""

    name: ClassVar[str] = "keeps-objects-in-settings"

    generator: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.generator = self.generator or np.random.default_rng(0)


class DependsOnItsCompany(Occlusion):
    """Divides by the largest value that it has ever seen."""

    name: ClassVar[str] = "depends-on-its-company"

    def attribute(self, trajectory: Any, *args: Any, **options: Any) -> Any:
        if isinstance(trajectory, Trajectory):
            return super().attribute(trajectory, *args, **options)
        answers = [super(type(self), self).attribute(one) for one in trajectory]
        most = max(float(np.abs(maps.data).max()) for maps in answers)
        for maps in answers:
            maps.data = maps.data / most
        return answers


class BadName(Occlusion):
    """A class's name."""

    name: ClassVar[str] = "BadName"
