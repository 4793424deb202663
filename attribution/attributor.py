"""``TextImageAttributor``: what every attribution method is."""

from __future__ import annotations

import reprlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from inspect import Parameter, signature
from typing import Any, ClassVar, Literal, Self, dataclass_transform, overload

import numpy as np

from wordlight.attribution.maps import AttributionMaps, Merge, Provenance
from wordlight.attribution.options import one_of, step_set, whole
from wordlight.attribution.question import Answer, ConvergenceDelta, Question, Size
from wordlight.attribution.targets import Guidance, PixelTarget
from wordlight.attribution.words import PromptWords, Word, WordKey
from wordlight.backends.backend import Backend, Evaluations, MissingCapabilityError
from wordlight.backends.gathering import gather
from wordlight.backends.tokens import Tokens
from wordlight.backends.trajectory import Trajectory

Family = Literal["attention", "gradient", "perturbation", "control"]
#: Which steps a method looks at: all, so many evenly spaced ones, or these.
Steps = int | Sequence[int] | None

#: Largest batch of one denoiser pass, where nothing else is asked for.
_BATCH_SIZE = 16
#: Images that are worked on side by side, and primitives whose passes they share.
IMAGES_AT_ONCE = 8
_SHARED = frozenset(("attention", "denoise", "denoise_jvp", "denoise_vjp"))


class BudgetError(ValueError):
    """A method can't be had for the budget: ``least`` forward-equivalents an image could do it."""

    def __init__(self, message: str, least: int) -> None:
        super().__init__(message)
        self.least = least


def options_of(method: type[TextImageAttributor]) -> tuple[str, ...]:
    """The names of the options that a method's constructor takes, without the backend."""
    parameters = signature(method).parameters.values()
    named = [one.name for one in parameters if one.kind not in _VARIABLE and one.name != "backend"]
    if any(one.kind is Parameter.VAR_KEYWORD for one in parameters):
        # A constructor of its own that hands on what it doesn't name.
        parent = next(kind for kind in method.__mro__[1:] if "__init__" in vars(kind))
        inherited = options_of(parent) if issubclass(parent, TextImageAttributor) else ()
        named = [*inherited, *(name for name in named if name not in inherited)]
    return tuple(named)


def _short_description(value: Any) -> str:
    """Describe what was given for a backend, and how to make one of it where that can be."""
    shown = reprlib.repr(value)
    if len(shown) > _LONGEST or hasattr(value, "scheduler"):
        shown = f"a {type(value).__name__}"
    return f"{shown}: load(pipeline) makes one of it" if hasattr(value, "scheduler") else shown


#: Of what is shown of a value.
_LONGEST = 100
_VARIABLE = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
class _OptionsAsFields:
    """Makes every subclass a dataclass, whose constructor takes its annotated attributes by name.

    A constructor that a class writes itself is kept, and its subclasses inherit it.
    """

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for name in _FACTS & vars(cls).get("__annotations__", {}).keys():
            cls.__annotations__[name] = ClassVar
        by_hand = "__init__" in vars(cls) or getattr(cls, "_constructor_by_hand", False)
        cls._constructor_by_hand = by_hand  # type: ignore[attr-defined]
        dataclass(init=not by_hand, repr=False, eq=False, kw_only=True)(cls)


#: What a class says of itself; never an option, however it is annotated.
_FACTS = frozenset(
    (
        "name question family needs paper signed merge by_token takes_targets takes_videos effort "
        "additive"
    ).split()
)


class TextImageAttributor(_OptionsAsFields, ABC):
    """Explains a text-to-image model word by word, in the manner of Captum's ``Attribution``.

    Constructed on what it explains, a backend, with the options that change the mathematics;
    asked through ``attribute``. A subclass sets the class attributes and writes ``_attribute`` and
    ``cost``.

    Subclasses are dataclasses, without a decorator: an annotated attribute with a default
    (``n_samples: int = 8``) is an option of the constructor and part of ``settings``.
    ``__post_init__`` checks the options, and calls ``super().__post_init__()`` first.

    Args:
        backend: the model.
        steps: the denoising steps; all where None.

    Attributes:
        name: as the command line knows it, in kebab-case.
        question: the question that its map answers, in a line; "" where none is said.
        family: the kind of signal that the method reads.
        needs: the backend's primitives that it calls.
        paper: its publication, "" for none.
        signed: whether values below zero speak against the word.
        merge: the rule that merges the maps of several tokens.
        by_token: whether each token counts by itself, so that a phrase asked for as one player has
            exactly the merge of its words' maps.
        takes_targets: whether it explains a pixel target against a baseline, so that others can be
            asked for.
        takes_videos: whether it explains videos, by maps ``(frame, y, x)``.
        effort: the option, a whole number, with which the cost grows; None for a fixed cost.
    """

    name: ClassVar[str]
    question: ClassVar[str] = ""
    family: ClassVar[Family]
    needs: ClassVar[frozenset[str]] = frozenset()
    paper: ClassVar[str] = ""
    signed: ClassVar[bool] = False
    merge: ClassVar[Merge] = "mean"
    by_token: ClassVar[bool] = False
    takes_targets: ClassVar[bool] = False
    takes_videos: ClassVar[bool] = False
    effort: ClassVar[str | None] = None

    backend: Backend = field(kw_only=False)
    steps: Steps = None

    def __post_init__(self) -> None:
        if not isinstance(self.backend, Backend):
            raise TypeError(
                f"{self.name} is constructed on a backend, such as load('scenes') gives, not on "
                f"{_short_description(self.backend)}"
            )
        try:
            self.backend.require(self.needs, self.name)
        except MissingCapabilityError as error:
            names = ", ".join(_methods_for(self.backend)) or "none"
            raise MissingCapabilityError(f"{error}; methods that work with it: {names}") from None
        self.steps = step_set(self.steps)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.settings().items())
        return f"{type(self).__name__}({options})"

    @property
    def multiplies_by_inputs(self) -> bool:
        """Captum's meaning: the scores are contributions, not slopes."""
        return True

    def has_convergence_delta(self) -> bool:
        """Return whether ``return_convergence_delta`` can be asked for."""
        return False

    @property
    def saw_masks(self) -> bool:
        """True if its options were fitted to masks: a comparison then shows it apart."""
        return False

    def settings(self) -> dict[str, Any]:
        """All that changes the answer, as plain data: the constructor's options."""
        return {name: getattr(self, name) for name in options_of(type(self))}

    def with_options(self, **options: Any) -> Self:
        """Return the method with some of its options changed.

        Raises TypeError for an option that it hasn't.
        """
        known = self.settings()
        if unknown := [name for name in options if name not in known]:
            raise TypeError(f"{self.name} has no option {unknown[0]!r}; it has {', '.join(known)}")
        return type(self)(self.backend, **{**known, **options})

    def cost(self, size: Size) -> Evaluations:
        """Return the cost of ``attribute`` on an image of this size: exactly what is then counted.

        Raises NotImplementedError where a method doesn't say.
        """
        raise NotImplementedError(f"{self.name} doesn't say what it costs: it must write cost()")

    def players(self, tokens: Tokens, words: Sequence[WordKey] | None) -> tuple[Word, ...]:
        """Return the players into which ``attribute`` cuts a prompt when it is asked about these
        words.

        Raises as ``attribute`` does for words that can't be asked about.
        """
        return partition(PromptWords.of(tokens), words)

    def size_of(self, trajectory: Trajectory, words: Sequence[WordKey] | None = None) -> Size:
        """The size of the question that ``attribute(trajectory, words)`` asks."""
        seen = self._seen(trajectory)
        return Size.of(seen, self.players(seen.tokens, words), self.steps)

    def _seen(self, trajectory: Trajectory) -> Trajectory:
        """The trajectory as the method looks at it: its tokens may be of other kinds."""
        return trajectory

    def least_effort(self, size: Size) -> int:
        """The smallest value of the effort option that an image of this size can be asked with."""
        return 1

    def within_budget(self, budget: int, *sizes: Size) -> Self:
        """Return the method with the most effort for which no image costs more than the budget.

        Args:
            budget: in forward-equivalents an image.
            sizes: of the images; one effort serves them all.

        Raises:
            BudgetError: the cheapest form of the method costs more.
        """

        def highest_cost(method: TextImageAttributor) -> int:
            return max(method.cost(size).forward_equivalents for size in sizes)

        whole("a budget", budget)
        if not sizes:
            raise ValueError("a budget needs the size of at least one image")
        option = self.effort
        if option is None:
            if (least := highest_cost(self)) > budget:
                raise BudgetError(_too_dear(self, least, budget, ""), least)
            return self
        low = max(self.least_effort(size) for size in sizes)
        chosen = self.with_options(**{option: low})
        if (least := highest_cost(chosen)) > budget:
            raise BudgetError(_too_dear(self, least, budget, f" with {option}={low}"), least)
        # Twice as much each time until it is too much, then halving what lies between. A unit of
        # effort costs a forward pass or more, so beyond ``most`` the cost has stopped growing.
        most, high = low + budget, 2 * low
        while high <= most and highest_cost(tried := self.with_options(**{option: high})) <= budget:
            low, high, chosen = high, 2 * high, tried
        high = min(high, most + 1)
        while high - low > 1:
            middle = (low + high) // 2
            tried = self.with_options(**{option: middle})
            if highest_cost(tried) <= budget:
                low, chosen = middle, tried
            else:
                high = middle
        return chosen

    @overload
    def attribute(
        self,
        trajectory: Trajectory,
        words: Sequence[WordKey] | None = None,
        *,
        baselines: str = "empty",
        target: PixelTarget | None = None,
        return_convergence_delta: Literal[False] = False,
        internal_batch_size: int | None = None,
        show_progress: bool = False,
        budget: int | None = None,
        words_of: str = "prompt",
        **options: Any,
    ) -> AttributionMaps: ...

    @overload
    def attribute(
        self,
        trajectory: Sequence[Trajectory],
        words: Sequence[WordKey] | None = None,
        *,
        baselines: str = "empty",
        target: PixelTarget | None = None,
        return_convergence_delta: Literal[False] = False,
        internal_batch_size: int | None = None,
        show_progress: bool = False,
        budget: int | None = None,
        words_of: str = "prompt",
        **options: Any,
    ) -> list[AttributionMaps]: ...

    @overload
    def attribute(
        self,
        trajectory: Trajectory,
        words: Sequence[WordKey] | None = None,
        *,
        baselines: str = "empty",
        target: PixelTarget | None = None,
        return_convergence_delta: Literal[True],
        internal_batch_size: int | None = None,
        show_progress: bool = False,
        budget: int | None = None,
        words_of: str = "prompt",
        **options: Any,
    ) -> tuple[AttributionMaps, ConvergenceDelta]: ...

    @overload
    def attribute(
        self,
        trajectory: Sequence[Trajectory],
        words: Sequence[WordKey] | None = None,
        *,
        baselines: str = "empty",
        target: PixelTarget | None = None,
        return_convergence_delta: Literal[True],
        internal_batch_size: int | None = None,
        show_progress: bool = False,
        budget: int | None = None,
        words_of: str = "prompt",
        **options: Any,
    ) -> list[tuple[AttributionMaps, ConvergenceDelta]]: ...

    def attribute(
        self,
        trajectory: Trajectory | Sequence[Trajectory],
        words: Sequence[WordKey] | None = None,
        *,
        baselines: str = "empty",
        target: PixelTarget | None = None,
        return_convergence_delta: bool = False,
        internal_batch_size: int | None = None,
        show_progress: bool = False,
        budget: int | None = None,
        words_of: str = "prompt",
        **options: Any,
    ) -> Any:
        """Maps over the image of each word.

        Args:
            trajectory: of one image, or a list of them (gives a list), which share passes of the
                denoiser: see ``attempt_each``.
            words: the players: ``"circle"``, a phrase ``"red circle"``, an occurrence
                ``("circle", 1)``, a character span ``slice(2, 12)``, or a list of such for words
                that are one player without standing together, ``["red", ("circle", 0)]``.
                Whatever they leave of the prompt is cut into its words all the same, so that
                players always partition the context. None means every word for itself.
            baselines: ``"empty"``, the empty prompt's embedding, or ``"negative"``, the negative
                prompt's.
            target: the scalar that is explained at each pixel; ``Guidance()`` where None.
            return_convergence_delta: give ``(maps, delta)``; see ``ConvergenceDelta``.
            internal_batch_size: largest batch of one denoiser pass, where memory is short.
            show_progress: show how many steps are done.
            budget: the most that an image may cost, in forward-equivalents; the effort option
                (``n_steps``, ``probes``, ``n_samples``, ...) is set to the most that fits.
            words_of: ``"prompt"``, or ``"negative"``: the words are those of the negative prompt,
                and what is explained is its half of the guidance (``Trajectory.of_negative``).
            options: the constructor's options (``n_steps``, ``method``, ``steps``, ...), changed
                for this call alone.

        Raises:
            KeyError: a word that isn't in the prompt.
            TypeError: what is no trajectory, words that are named in no known way, an option that
                the method hasn't.
            ValueError: words that overlap, an unknown baseline, steps the trajectory hasn't, a
                target or a delta of a method that has none.
            BudgetError: a budget that the cheapest form of the method exceeds.
        """
        common: dict[str, Any] = {
            "baselines": baselines,
            "target": target,
            "return_convergence_delta": return_convergence_delta,
            "internal_batch_size": internal_batch_size,
            "show_progress": show_progress,
            "words_of": words_of,
        }
        if options:
            if budget is not None and self.effort in options:
                raise TypeError(f"{self.effort} is what the budget decides: give one of the two")
            changed = self.with_options(**options)
            return changed.attribute(trajectory, words, budget=budget, **common)
        if not isinstance(trajectory, Trajectory):
            if isinstance(trajectory, str) or not isinstance(trajectory, Iterable):
                raise TypeError(
                    f"{self.name} is asked about a trajectory or a list of them (backend.sample "
                    f"and backend.invert give such), not about {trajectory!r}"
                )
            found = self.attempt_each(list(trajectory), words, budget=budget, **common)
            for one in found:
                if isinstance(one, Exception):
                    raise one
            return found
        if words_of != "prompt":
            trajectory = trajectory_of(trajectory, words_of)
        if budget is not None:
            fitted = self.within_budget(budget, self.size_of(trajectory, words))
            return fitted.attribute(trajectory, words, **{**common, "words_of": "prompt"})
        self._check_request(baselines, target, return_convergence_delta, internal_batch_size)
        if trajectory.is_video:
            self._check_videos(target)
        trajectory = self._seen(trajectory)
        question = Question(
            trajectory=trajectory,
            players=self.players(trajectory.tokens, words),
            steps=trajectory.at_steps(self.steps),
            baseline=choose_baseline(trajectory, baselines),
            baseline_text=(trajectory.negative_prompt or "") if baselines == "negative" else "",
            target=target or Guidance(),
            batch_size=internal_batch_size or _BATCH_SIZE,
            show_progress=show_progress,
        )
        if self.needs & {"attention", "denoise", "denoise_jvp"}:
            trajectory.check_replayable()
            self.backend.check_made_here(trajectory)
        maps, delta = self._answered(question, baselines)
        return (maps, delta) if return_convergence_delta else maps

    def _answered(
        self, question: Question, baselines: str
    ) -> tuple[AttributionMaps, ConvergenceDelta | None]:
        """Ask the method, and say beside its maps where they come from and what they cost."""
        backend, trajectory = self.backend, question.trajectory
        halved = backend.limits.halvings
        backend.reset_peak_bytes()
        compiled = backend.compile_seconds()
        started = time.perf_counter()
        with backend.counting_apart() as spent:
            answer = self._attribute(question)
        compiled = backend.compile_seconds() - compiled
        seconds = max(time.perf_counter() - started - compiled, 0.0)
        asked = question.target.settings() if self.takes_targets else {}
        provenance = Provenance(
            method=self.name,
            settings={
                **self.settings(),
                "baselines": baselines,
                **asked,
                **said_of(trajectory),
            },
            model_id=backend.model_id,
            revision=backend.revision,
            framework=backend.framework,
            seed=trajectory.seed,
            forward_equivalents=spent.forward_equivalents,
            seconds=seconds,
            peak_bytes=backend.peak_bytes(),
            compile_seconds=compiled,
            halvings=backend.limits.halvings - halved,
            probes=answer.probes,
            completeness_error=None if answer.delta is None else answer.delta.error,
            precision=backend.precision,
            **asdict(spent),
        )
        maps = AttributionMaps(
            answer.maps,
            question.players,
            trajectory.tokens,
            trajectory.image,
            merge=self.merge,
            signed=self.signed,
            provenance=provenance,
        )
        return maps, answer.delta

    def attempt_each(
        self,
        trajectories: Sequence[Trajectory],
        words: Sequence[WordKey] | None = None,
        **asked: Any,
    ) -> list[Any]:
        """``attribute`` of each of several images, with the error in the place of one that raises.

        Images are worked on side by side, up to eight, so that small passes of the denoiser are
        filled with the rows of several; maps differ from those of one image at a time by rounding
        alone. ``seconds`` are then each image's share, by what it cost, of the time of all.
        With ``internal_batch_size`` every image has passes of its own.
        """
        shared = self.backend.shares_passes and self.needs & _SHARED
        at_once = IMAGES_AT_ONCE if shared and asked.get("internal_batch_size") is None else 1
        found: list[Any] = []
        for start in range(0, len(trajectories), at_once):
            works = []
            for one in trajectories[start : start + at_once]:
                # A copy, so that what a method of one's own keeps while it works is of one image.
                works.append(partial(copy(self).attribute, one, words, **asked))
                # They go on together: one bar says how far all are.
                if at_once > 1:
                    asked = {**asked, "show_progress": False}
            compiled = self.backend.compile_seconds()
            started = time.perf_counter()
            made = gather(works, self.backend.settings_of_thread())
            if len(works) > 1:
                compiled = self.backend.compile_seconds() - compiled
                _share_time(made, max(time.perf_counter() - started - compiled, 0.0), compiled)
            found += made
        return found

    def _check_request(
        self,
        baselines: str,
        target: PixelTarget | None,
        delta: bool,
        internal_batch_size: int | None,
    ) -> None:
        if baselines == "negative" and not self.takes_targets:
            raise ValueError(f"{self.name} compares with no baseline: leave baselines out")
        if target is not None:
            if not self.takes_targets:
                raise ValueError(f"{self.name} explains no pixel target: leave target out")
            if not isinstance(target, PixelTarget):
                raise TypeError(f"a target is an object such as Guidance(), not {target!r}")
            self.backend.require(target.needs, f"the target {target.name}")
        if delta and not self.has_convergence_delta():
            raise ValueError(f"{self.name} has no convergence delta: its maps share nothing out")
        if internal_batch_size is not None:
            whole("internal_batch_size", internal_batch_size)

    def _check_videos(self, target: PixelTarget | None) -> None:
        """Raises ValueError where this method, or the target, is of single images alone."""
        if not self.takes_videos:
            raise ValueError(
                f"{self.name} explains single images, and this is a video: ask daam, or a method "
                "that explains the prediction step by step, such as occlusion or input-x-gradient"
            )
        if target is not None and not target.takes_videos:
            raise ValueError(f"the target {target.name} is of single images, and this is a video")

    @abstractmethod
    def _attribute(self, question: Question) -> Answer:
        """One map a player, in the players' order."""


def _methods_for(backend: Backend) -> list[str]:
    """The names of the installed methods that a backend has enough for."""
    from wordlight.attribution.registry import available

    return [name for name, method in available().items() if method.needs <= backend.capabilities]


def said_of(trajectory: Trajectory) -> dict[str, Any]:
    """What maps' settings say of a run: of a video how many frames its maps have, whose words they
    are where those aren't the prompt's, and whether a probe found where the words are."""
    said: dict[str, Any] = {"frames": trajectory.places[0]} if trajectory.is_video else {}
    if trajectory.words_of != "prompt":
        said["words_of"] = trajectory.words_of
    if trajectory.layout_from != "table":
        said["layout_from"] = trajectory.layout_from
    return said


def trajectory_of(trajectory: Trajectory, words_of: str) -> Trajectory:
    """A run with the words that are asked about; raises ValueError for an unknown choice, and as
    ``Trajectory.of_negative`` does."""
    one_of("words_of", words_of, ("prompt", "negative"))
    return trajectory if words_of == trajectory.words_of else trajectory.of_negative()


def _share_time(found: Sequence[Any], seconds: float, compiled: float) -> None:
    """Give maps that were made side by side their shares of the time that all of them took."""
    made = [one[0] if isinstance(one, tuple) else one for one in found]
    maps = [one for one in made if isinstance(one, AttributionMaps)]
    costs = [one.provenance.forward_equivalents for one in maps]
    for one, cost in zip(maps, costs, strict=True):
        share = cost / sum(costs) if sum(costs) else 1 / len(maps)
        one.provenance = replace(
            one.provenance, seconds=share * seconds, compile_seconds=share * compiled
        )


def _too_dear(method: TextImageAttributor, least: int, budget: int, how: str) -> str:
    return (
        f"{method.name} costs at least {least} forward-equivalents an image{how}, and the budget "
        f"is {budget}"
    )


def partition(words: PromptWords, wanted: Sequence[WordKey] | None) -> tuple[Word, ...]:
    """The players: the wanted words, phrases and groups, every other word, the special positions.

    Raises as ``PromptWords.find`` does, and ValueError where two wanted ones overlap.
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
    text = [w for w in dict.fromkeys(text) if w not in words.specials]
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
