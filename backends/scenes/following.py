"""How well an image follows its prompt: colours, shapes, counts and relations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from wordlight.backends.scenes.grammar import Scene
from wordlight.backends.scenes.segment import Segmentation

#: Centres must differ by this many pixels for one to count as left of or above the other.
_MIN_OFFSET = 2.0


@dataclass(frozen=True)
class Following:
    """Right answers and questions asked, by kind: ``colour``, ``shape``, ``count``, ``relation``.

    ``colour`` asks of each object that was asked for whether one of its colour is there; ``shape``
    the same of colour and shape together; ``count`` of each group whether exactly so many are
    there (see ``Segmentation.members``: a wrong shape isn't held against it too); ``relation`` of
    a spatial relation whether it holds.
    """

    right: dict[str, int]
    asked: dict[str, int]

    def shares(self) -> dict[str, float]:
        """Share of right answers by kind; nan where nothing was asked."""
        return {
            kind: self.right[kind] / self.asked[kind] if self.asked[kind] else float("nan")
            for kind in self.asked
        }


KINDS = ("colour", "shape", "count", "relation")


def follow(scene: Scene, found: Segmentation) -> Following:
    """Compare what was asked for with what is there."""
    right, asked = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    wanted_pairs: Counter[tuple[str, str | None]] = Counter()
    wanted_colours: Counter[str] = Counter()
    for group in scene.groups:
        wanted_pairs[group.colour, group.shape] += group.count
        wanted_colours[group.colour] += group.count
        asked["count"] += 1
        right["count"] += len(found.members(scene, group)) == group.count
    asked["colour"] = asked["shape"] = wanted_pairs.total()
    right["colour"] = (wanted_colours & Counter(o.colour for o in found.objects)).total()
    right["shape"] = (wanted_pairs & Counter((o.colour, o.shape) for o in found.objects)).total()
    if scene.relation not in (None, "and"):
        asked["relation"] = 1
        right["relation"] = _relation_holds(scene, found)
    return Following(right, asked)


def total(items: Iterable[Following]) -> Following:
    """The sum over many images."""
    right, asked = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    for item in items:
        for kind in KINDS:
            right[kind] += item.right[kind]
            asked[kind] += item.asked[kind]
    return Following(right, asked)


def _relation_holds(scene: Scene, found: Segmentation) -> bool:
    first, second = (found.members(scene, group) for group in scene.groups)
    if not first or not second:
        return False
    right = float(np.mean([o.x for o in second]) - np.mean([o.x for o in first]))
    down = float(np.mean([o.y for o in second]) - np.mean([o.y for o in first]))
    ahead = {"left": right, "right": -right, "above": down, "below": -down}[str(scene.relation)]
    return ahead >= _MIN_OFFSET
