"""``TextImageAttributor``: what every attribution method is."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar, Literal, overload

import numpy as np
import xarray as xr

from wordlight.attribution.maps import AttributionMaps, Merge, Provenance
from wordlight.attribution.words import PromptWords, Word, WordKey
from wordlight.backends.backend import Backend
from wordlight.backends.trajectory import Trajectory

Family = Literal["attention", "gradient", "perturbation", "control"]
#: Which steps a method looks at: all, so many evenly spaced ones, or these.
Steps = int | Sequence[int] | None


class TextImageAttributor(ABC):
    """Explains a text-to-image model word by word, in the manner of Captum's ``Attribution``.

    Constructed on what it explains, a backend, with the options that change the mathematics;
    asked through ``attribute``. A subclass sets the class attributes and writes ``_attribute``.

    Attributes:
        name: as the command line knows it, in kebab-case.
        family: what the method looks at.
        needs: the backend's primitives that it calls.
        paper: where it was published, "" for none.
        signed: whether values below zero speak against the word.
        merge: how the maps of several tokens become one.
        option_names: the constructor's options that belong to the settings.
    """

    name: ClassVar[str]
    family: ClassVar[Family]
    needs: ClassVar[frozenset[str]] = frozenset()
    paper: ClassVar[str] = ""
    signed: ClassVar[bool] = False
    merge: ClassVar[Merge] = "mean"
    option_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, backend: Backend, *, steps: Steps = None) -> None:
        backend.require(self.needs, self.name)
        self.backend = backend
        self.steps = steps if steps is None or isinstance(steps, int) else tuple(steps)

    @property
    def multiplies_by_inputs(self) -> bool:
        """Captum's meaning: the scores are contributions, not slopes."""
        return True

    def has_convergence_delta(self) -> bool:
        """Whether ``return_convergence_delta`` can be asked for."""
        return False

    def settings(self) -> dict[str, Any]:
        """All that changes the answer, as plain data."""
        return {"steps": self.steps, **{name: getattr(self, name) for name in self.option_names}}

    @overload
    def attribute(
        self,
        trajectory: Trajectory,
        words: Sequence[WordKey] | None = None,
        *,
        baselines: str = "empty",
    ) -> AttributionMaps: ...

    @overload
    def attribute(
        self,
        trajectory: Sequence[Trajectory],
        words: Sequence[WordKey] | None = None,
        *,
        baselines: str = "empty",
    ) -> list[AttributionMaps]: ...

    def attribute(
        self,
        trajectory: Trajectory | Sequence[Trajectory],
        words: Sequence[WordKey] | None = None,
        *,
        baselines: str = "empty",
    ) -> AttributionMaps | list[AttributionMaps]:
        """Maps over the image of each word.

        Args:
            trajectory: of one image, or a list of them (gives a list).
            words: the players that words, phrases, occurrences or spans name; whatever they leave
                of the prompt is cut into its words all the same, so that players always partition
                the context. None means every word for itself.
            baselines: ``"empty"``, the empty prompt's embedding, or ``"negative"``, the negative
                prompt's.

        Raises:
            KeyError: a word that isn't in the prompt.
            ValueError: words that overlap, an unknown baseline, steps the trajectory hasn't.
        """
        if not isinstance(trajectory, Trajectory):
            return [self.attribute(one, words, baselines=baselines) for one in trajectory]
        players = partition(PromptWords.of(trajectory.tokens), words)
        steps = trajectory.at_steps(self.steps)
        baseline = choose_baseline(trajectory, baselines)
        if self.needs & {"attention", "denoise", "denoise_jvp"}:
            trajectory.check_replayable()
        before = replace(self.backend.evaluations)
        self.backend.reset_peak_bytes()
        started = time.perf_counter()
        data = self._attribute(trajectory, players, steps, baseline)
        seconds = time.perf_counter() - started
        spent = self.backend.evaluations - before
        provenance = Provenance(
            method=self.name,
            settings={**self.settings(), "baselines": baselines},
            model_id=self.backend.model_id,
            revision=self.backend.revision,
            framework=self.backend.framework,
            seed=trajectory.seed,
            forward_equivalents=spent.forward_equivalents,
            seconds=seconds,
            peak_bytes=self.backend.peak_bytes(),
            **asdict(spent),
        )
        return AttributionMaps(
            data,
            players,
            trajectory.tokens,
            trajectory.image,
            merge=self.merge,
            signed=self.signed,
            provenance=provenance,
        )

    @abstractmethod
    def _attribute(
        self,
        trajectory: Trajectory,
        players: tuple[Word, ...],
        steps: tuple[int, ...],
        baseline: np.ndarray[Any, np.dtype[Any]],
    ) -> xr.DataArray:
        """The maps ``(word, [step, layer, head,] y, x)`` on the latent grid, one a player."""


def partition(words: PromptWords, wanted: Sequence[WordKey] | None) -> tuple[Word, ...]:
    """The players: the wanted words and phrases, every other word, the special positions.

    Raises KeyError for a word that isn't there, ValueError where two wanted ones overlap.
    """
    if wanted is None:
        return words.players
    if isinstance(wanted, str):
        raise TypeError(f"words must be a list of words, not the string {wanted!r}")
    chosen = [words.find(key) for key in wanted]
    taken: set[int] = set()
    for word in chosen:
        if taken & set(word.tokens):
            raise ValueError(f"{word.text!r} overlaps another of the words asked for")
        taken |= set(word.tokens)
    text = [w for w in (*chosen, *words.words) if w in chosen or not taken & set(w.tokens)]
    text = [w for w in dict.fromkeys(text) if w.stop > w.start]
    return (*sorted(text, key=lambda w: w.start), *words.specials)


def choose_baseline(trajectory: Trajectory, name: str) -> np.ndarray[Any, np.dtype[Any]]:
    """The baseline embeddings ``(tokens, channels)``; raises ValueError for an unknown name."""
    if name == "empty":
        return trajectory.empty_embeddings
    if name == "negative":
        if trajectory.negative_embeddings is None:
            raise ValueError("baselines='negative', but the image was made without guidance")
        return trajectory.negative_embeddings
    raise ValueError(f"baselines must be 'empty' or 'negative', not {name!r}")
