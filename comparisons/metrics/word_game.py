"""The target when words are taken out of a prompt, at the same noise."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wordlight.attribution.attributor import Steps, choose_baseline
from wordlight.attribution.question import Question
from wordlight.attribution.step import Inputs, player_masks, prepare_step
from wordlight.attribution.targets import Guidance
from wordlight.attribution.words import PromptWords, Word
from wordlight.backends.backend import Backend
from wordlight.backends.trajectory import Trajectory

Sets = npt.NDArray[np.bool_]
Maps = npt.NDArray[np.float64]

#: What a reader of metrics on this game must know.
TARGET_NOTE = (
    "order and infidelity ask for the very target that gradient and perturbation methods explain: "
    "of attention they say how far it tells of it"
)


class WordGame:
    """f of an image by which words of its prompt are there, at each pixel, averaged over steps.

    A word that is taken out has the empty prompt's embeddings in its places, as ``Occlusion`` does
    it; the other words' embeddings, and those of the special positions, stay. f is the target that
    methods explain, 0 at the empty prompt. Every set of words is asked for once.

    Args:
        backend: the model.
        trajectory: of the image.
        steps: the steps; evenly spaced ones for a number, all where None.

    Raises:
        MissingCapabilityError: a backend without ``denoise``, or without what the target needs.
        ValueError: a run that can't be replayed, steps that it hasn't.
    """

    def __init__(self, backend: Backend, trajectory: Trajectory, *, steps: Steps = None) -> None:
        target = Guidance()
        backend.require(frozenset({"denoise"}) | target.needs, "taking words out of a prompt")
        trajectory.check_replayable()
        chosen = steps if steps is None or isinstance(steps, int) else tuple(steps)
        self.words: tuple[Word, ...] = PromptWords.of(trajectory.tokens).words
        self._backend = backend
        self._places = player_masks(self.words, len(trajectory.tokens))
        question = Question(
            trajectory=trajectory,
            players=PromptWords.of(trajectory.tokens).players,
            steps=trajectory.at_steps(chosen),
            baseline=choose_baseline(trajectory, "empty"),
            target=target,
        )
        with backend.no_gradients():
            inputs = Inputs.of(backend, question, "embeddings")
            self._steps = [prepare_step(question, inputs, step) for step in question.steps]
            totals = [backend.to_numpy(step.total) for step in self._steps]
        self._known: dict[bytes, Maps] = {
            np.zeros(len(self.words), bool).tobytes(): np.mean(totals, axis=0, dtype=np.float64)
        }

    @property
    def full(self) -> Maps:
        """f(E), with all words, ``(y, x)``."""
        full: Maps = self.without(np.zeros((1, len(self.words)), bool))[0]
        return full

    def without(self, removed: Sets) -> Maps:
        """f without some words: ``(batch, words)``, True for a word that is taken out, to
        ``(batch, y, x)``."""
        keys = [row.tobytes() for row in np.ascontiguousarray(removed, bool)]
        new = {key: row for key, row in zip(keys, removed, strict=True) if key not in self._known}
        if new:
            gone = np.einsum("rw,wtd->rtd", np.stack(list(new.values())), self._places)
            with self._backend.no_gradients():
                kept = self._backend.asarray(1.0 - gone)
                values = [self._backend.to_numpy(s.values_with(kept)) for s in self._steps]
            mean: Maps = np.mean(values, axis=0, dtype=np.float64)
            self._known |= zip(new, mean, strict=True)
        return np.stack([self._known[key] for key in keys])
