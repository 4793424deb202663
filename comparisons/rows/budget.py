"""One budget for every method: each gets as much effort as it pays for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wordlight.attribution.attributor import BudgetError, Steps, TextImageAttributor, partition
from wordlight.attribution.question import Size
from wordlight.attribution.words import PromptWords, WordKey
from wordlight.backends.backend import Backend


@dataclass(frozen=True)
class Workload:
    """The images that a budget is for, before any is drawn.

    Attributes:
        lengths: the different numbers of players and, of them, of words that their prompts have.
        sampling_steps: the number of calls of the denoiser for an image.
        guided: whether with guidance.
    """

    lengths: tuple[tuple[int, int], ...]
    sampling_steps: int
    guided: bool

    @classmethod
    def of(
        cls,
        backend: Backend,
        prompts: Iterable[str],
        words: Sequence[WordKey] | None = None,
        *,
        guidance_scale: float | None = None,
    ) -> Workload:
        """The images of some prompts, drawn as the backend draws where nothing else is said.

        Raises KeyError, ValueError where ``words`` are none of the prompts'.
        """
        lengths = set()
        for prompt in prompts:
            players = partition(PromptWords.of(backend.tokenize(prompt)), words)
            lengths.add((len(players), sum(p.is_text for p in players)))
        facts = backend.drawing
        guidance = facts.guidance_of(guidance_scale)
        return cls(tuple(sorted(lengths)), facts.steps, guidance > 1)

    def sizes(self, steps: Steps) -> list[Size]:
        """The sizes of what a method with these steps is asked."""
        if steps is None:
            count = self.sampling_steps
        else:
            count = steps if isinstance(steps, int) else len(steps)
        drawing = self.sampling_steps * (2 if self.guided else 1)
        return [Size(players, words, count, drawing) for players, words in self.lengths]


class BudgetRefusedError(ValueError):
    """Some methods can't be had for the budget."""


def fit(
    methods: Iterable[tuple[str, TextImageAttributor]], budget: int, workload: Workload
) -> list[TextImageAttributor]:
    """Each method with the most effort for which no image costs more than the budget.

    Args:
        methods: by the names that an error calls them.
        budget: in forward-equivalents an image.
        workload: the images; one effort serves them all.

    Raises:
        BudgetRefusedError: methods that can't be had for it, all of them, with the least budget of
            each; and those that don't say what they cost.
    """
    fitted: list[TextImageAttributor] = []
    refused: list[str] = []
    least = 0
    for name, method in methods:
        try:
            fitted.append(method.within_budget(budget, *workload.sizes(method.steps)))
        except BudgetError as error:
            refused.append(f"{name} (at least {error.least})")
            least = max(least, error.least)
        except NotImplementedError:
            refused.append(f"{name} (doesn't say what it costs)")
    if refused:
        advice = f", or take a budget of {least}" if least else ""
        them = "it" if len(refused) == 1 else "them"
        raise BudgetRefusedError(
            f"a budget of {budget} forward-equivalents an image is not enough for "
            f"{', '.join(refused)}: leave {them} out{advice}"
        )
    return fitted


def refuse_both(method: TextImageAttributor, options: Mapping[str, Any]) -> None:
    """Raises ValueError where a budget and the method's options both say what its effort is."""
    if method.effort in options:
        raise ValueError(
            f"{method.effort} of {method.name} is what the budget decides: give one of the two"
        )


def effort_of(method: TextImageAttributor) -> str:
    """The effort that was chosen, such as ``"n_steps 4"``; ``"fixed cost"`` where none can be."""
    if method.effort is None:
        return "fixed cost"
    return f"{method.effort} {method.settings()[method.effort]}"
