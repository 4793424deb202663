"""Measures of how well an image follows its prompt: colours, shapes, counts and relations."""

from __future__ import annotations

from collections import Counter

from wordlight.backends.following import Following, relation_holds
from wordlight.backends.scenes.grammar import Scene
from wordlight.backends.scenes.segment import Segmentation

KINDS = ("colour", "shape", "count", "relation")


def follow(scene: Scene, found: Segmentation) -> Following:
    """Compare what was asked for with what is there.

    ``colour`` asks of each object that was asked for whether one of its colour is there; ``shape``
    the same of colour and shape together; ``count`` of each group whether exactly so many are
    there (see ``Segmentation.members``: a wrong shape isn't held against it too); ``relation`` of
    a spatial relation whether it holds.
    """
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
    if scene.relation is not None and scene.relation != "and":
        asked["relation"] = 1
        right["relation"] = relation_holds(
            scene.relation, *(found.members(scene, group) for group in scene.groups)
        )
    return Following(right, asked)
