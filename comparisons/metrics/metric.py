"""``Metric``: a function that scores maps, with the facts that tables and tests need of it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, get_args

from wordlight.comparisons.datasets.item import Mask

#: What a metric's function is given, and gives a value of.
#:
#: - ``"word"``: each scored word (``JudgedWord``); tables average by kind of word;
#: - ``"headline"``: each headline word by itself, and no other;
#: - ``"words"``: an image's headline words together (a list of ``JudgedWord``), one value each;
#: - ``"image"``: an image with all of its maps (``JudgedImage``);
#: - ``"cost"``: what the maps cost (``Provenance``).
Over = Literal["word", "headline", "words", "image", "cost"]
#: What must be there for it.
#:
#: - ``"masks"``: of the words;
#: - ``"thresholds"``: chosen for the row on the calibration split;
#: - ``"word-game"``: a model that can be asked without some of the words;
#: - ``"regeneration"``: a model that draws the image again without a word;
#: - ``"method"``: the method itself, to be asked again.
Need = Literal["masks", "thresholds", "word-game", "regeneration", "method"]

#: Tables with a place of their own. Metrics of any other name share a table of that name.
HEADLINE_TABLE, MORE_TABLE, NO_TABLE = "headline", "more", ""


@dataclass(frozen=True, eq=False)
class Metric:
    """One score of maps.

    Attributes:
        name: in results, files and the command line, in kebab-case.
        score: the function, of what ``over`` says and the ``options`` by name; None where the
            value isn't defined.
        over: its input.
        label: its name in tables; the name where nothing is said.
        higher_is_better: the direction.
        digits: the number of digits in tables.
        unit: the divisor of a printed number, such as 2**20 for MiB.
        needs: the inputs that must be there.
        constant: the score of a map that is the same everywhere: a number, a function of the mask,
            or None where that depends on the model.
        least, most: the range of the values.
        groups: further names that it can be asked for by, with others.
        table: the table that it is in: ``"headline"``, ``"more"``, ``""`` (in files alone), or the
            name of a table of its own kind.
        interval: whether the first table prints its interval.
        ranked: whether rows are tested against each other and ranked by it.
        every_word: whether its mean is over all scored words, and not the headline words alone.
        reference: the method that is this metric's own truth; it is shown, and not ranked.
        options: further arguments of the function that may be asked for otherwise; numbers are
            above 0.
        notes: remarks for readers of its table.
    """

    name: str
    score: Callable[..., Any]
    over: Over
    label: str = ""
    higher_is_better: bool = True
    digits: int = 3
    unit: float = 1.0
    needs: frozenset[Need] = frozenset({"masks"})
    constant: float | Callable[[Mask], float | None] | None = None
    least: float = 0.0
    most: float = 1.0
    groups: tuple[str, ...] = ()
    table: str = MORE_TABLE
    interval: bool = False
    ranked: bool = False
    every_word: bool = False
    reference: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.over not in get_args(Over):
            raise ValueError(f"{self.name}: over must be one of {', '.join(get_args(Over))}")
        if unknown := sorted(set[str](self.needs) - set(get_args(Need))):
            raise ValueError(
                f"{self.name} can't need {unknown[0]!r}; there are {', '.join(get_args(Need))}"
            )
        _, *taken = inspect.signature(self.score).parameters
        if unknown := sorted(set(self.options) - set(taken)):
            raise ValueError(f"{self.name}: its function takes no {unknown[0]!r}")

    @property
    def shown(self) -> str:
        """The metric's name in tables."""
        return self.label or self.name

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value that it can have."""
        return self.least, self.most

    @property
    def of_headline(self) -> bool:
        """True if its values are those of headline words."""
        return self.over in ("word", "headline", "words") and not self.every_word

    def with_options(self, **options: Any) -> Self:
        """Return the metric with some of its options changed.

        Raises ValueError for an option that it hasn't, or a value of another kind.
        """
        for name, value in options.items():
            if name not in self.options:
                there = ", ".join(self.options) or "none"
                raise ValueError(f"{self.name} has no option {name!r}; it has: {there}")
            _check_option(f"{name} of {self.name}", value, self.options[name])
        return replace(self, options={**self.options, **options})

    def of_constant(self, mask: Mask) -> float | None:
        """Return the score, on a mask, of a map that is the same everywhere; None where nobody
        knows."""
        return self.constant(mask) if callable(self.constant) else self.constant

    def facts(self) -> dict[str, Any]:
        """Return the facts that a page needs to show its values, as plain data."""
        return {
            "label": self.shown,
            "higher_is_better": self.higher_is_better,
            "digits": self.digits,
            "unit": self.unit,
            "over": self.over,
            "table": self.table,
            "interval": self.interval,
            "options": dict(self.options),
        }


def _check_option(name: str, value: Any, default: Any) -> None:
    if isinstance(default, int | float):
        kinds = (int,) if isinstance(default, int) else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            what = "a whole number" if isinstance(default, int) else "a number"
            raise ValueError(f"{name} must be {what}, not {value!r}")
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0, not {value}")
    elif not isinstance(value, type(default)):
        raise ValueError(f"{name} can't be {value!r}")


def share(mask: Mask) -> float:
    """The mask's share of the image: what a map that marks the whole image scores by many."""
    return float(mask.mean())
