"""Right answers of an image to the questions that its prompt asks, whatever it shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from wordlight.backends.prompts import distance_along

#: Centres must differ by this many pixels for one to count as left of or above the other.
_MIN_OFFSET = 2.0


@dataclass(frozen=True)
class Following:
    """Right answers and questions asked, by kind of question."""

    right: dict[str, int]
    asked: dict[str, int]

    def shares(self) -> dict[str, float]:
        """Return the share of right answers by kind; nan where nothing was asked."""
        return {
            kind: self.right[kind] / self.asked[kind] if self.asked[kind] else float("nan")
            for kind in self.asked
        }


def total(items: Iterable[Following]) -> Following:
    """Return the sum over many images."""
    right: dict[str, int] = {}
    asked: dict[str, int] = {}
    for item in items:
        for kind in item.asked:
            right[kind] = right.get(kind, 0) + item.right[kind]
            asked[kind] = asked.get(kind, 0) + item.asked[kind]
    return Following(right, asked)


class Placed(Protocol):
    """Anything that has a place in an image."""

    @property
    def x(self) -> float:
        """The centre from the left, in pixels."""

    @property
    def y(self) -> float:
        """The centre from the top, in pixels."""


def relation_holds(relation: str, first: Sequence[Placed], second: Sequence[Placed]) -> bool:
    """Return True where the mean centres of two groups lie as a relation says."""
    if not first or not second:
        return False
    right = float(np.mean([o.x for o in second]) - np.mean([o.x for o in first]))
    down = float(np.mean([o.y for o in second]) - np.mean([o.y for o in first]))
    return distance_along(relation, right, down) >= _MIN_OFFSET
