"""Checks of a method's options, so that a wrong one is named where the method is constructed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

_Choice = TypeVar("_Choice", bound=str)


def whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number of ``least`` or more; raises TypeError or ValueError, by the option's name."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be {least} or more, not {value}")
    return int(value)


def number(name: str, value: Any, least: float = 0.0) -> float:
    """A number of ``least`` or more; raises TypeError or ValueError, by the option's name."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {value!r}")
    found = float(value)
    if not least <= found < float("inf"):
        raise ValueError(f"{name} must be {least:g} or more, not {value}")
    return found


def one_of(name: str, value: Any, known: Sequence[_Choice]) -> _Choice:
    """One of some texts; raises ValueError with all of them."""
    for choice in known:
        if value == choice:
            return choice
    *others, last = map(repr, known)
    raise ValueError(f"{name} must be {', '.join(others)} or {last}, not {value!r}")


def list_of(name: str, value: Any, example: str) -> tuple[Any, ...]:
    """Return a list's items; raises TypeError for a single text or number, with an example."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list, such as {example}, not {value!r}")
    return tuple(value)


def step_set(value: Any) -> int | tuple[int, ...] | None:
    """Check a choice of steps: all (None), a number of evenly spaced ones, or these.

    Raises TypeError for anything else, ValueError for less than one.
    """
    if value is None or (isinstance(value, Integral) and not isinstance(value, bool)):
        return value if value is None else whole("steps", value)
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"steps must be how many, a list of which, or None for all, not {value!r}")
    return tuple(whole("a step's number", one, 0) for one in value)
