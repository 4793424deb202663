"""What the card says of the test prompts: their twins in training, and phrases of one colour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from wordlight.backends.embedded import EMBEDDED
from wordlight.backends.prompts import generator_of
from wordlight.backends.scenes.grammar import SPLITS, Scene, sample_scene, split_of


def first(split: str, n: int) -> list[Scene]:
    return [sample_scene(generator_of(split, index, 0, SPLITS), split) for index in range(n)]


def share(scenes: list[Scene], holds: Callable[[Scene], bool]) -> float:
    return sum(map(holds, scenes)) / len(scenes)


def has_twin(scene: Scene) -> bool:
    return split_of(replace(scene, full_stop=not scene.full_stop)) == "train"


def has_one_colour_twice(scene: Scene) -> bool:
    return len({group.colour for group in scene.groups}) < len(scene.groups)


def test_the_card_says_how_many_test_prompts_have_a_twin_in_training() -> None:
    card = " ".join((EMBEDDED["scenes"] / "README.md").read_text("utf-8").split())
    scenes = first("test", 400)
    assert f"first 400 test prompts {share(scenes, has_twin):.0%}".replace("%", " %") in card
    assert f"(in {share(scenes, has_one_colour_twice):.0%}".replace("%", " %") in card
    assert share(first("unseen-pairs", 50), has_twin) == 0
