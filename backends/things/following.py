"""Measures of how well an image follows its prompt: things, counts, relations and the ground."""

from __future__ import annotations

from wordlight.backends.following import Following, relation_holds
from wordlight.backends.things.grammar import Scene
from wordlight.backends.things.segment import Segmentation

KINDS = ("thing", "count", "relation", "ground")


def follow(scene: Scene, found: Segmentation) -> Following:
    """Compare what was asked for with what is there.

    ``thing`` asks of each thing that was asked for whether one of its noun is there; ``count`` of
    each group whether exactly so many are there; ``relation`` of a spatial relation whether it
    holds; ``ground`` whether the ground is the one asked for.
    """
    right, asked = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    members = [found.members(scene, group) for group in scene.groups]
    for group, there in zip(scene.groups, members, strict=True):
        asked["thing"] += group.count
        right["thing"] += min(group.count, len(there))
        asked["count"] += 1
        right["count"] += len(there) == group.count
    if scene.relation is not None and scene.relation != "and":
        asked["relation"] = 1
        right["relation"] = relation_holds(scene.relation, *members)
    if scene.ground is not None:
        asked["ground"] = 1
        right["ground"] = found.ground == scene.ground
    return Following(right, asked)
