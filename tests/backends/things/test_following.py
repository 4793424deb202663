"""How well a picture follows its prompt: cases whose answers are known."""

import numpy as np
import pytest

from wordlight.backends.things.following import KINDS, follow
from wordlight.backends.things.grammar import Group, Scene
from wordlight.backends.things.segment import FoundThing, Segmentation

MASK = np.zeros((64, 64), bool)
DOG, TWO_BUSES = Group(1, None, None, "dog"), Group(2, None, "red", "bus")


def picture(*things, ground="grass"):
    """A segmentation with things ``(noun, x, y)``."""
    return Segmentation(tuple(FoundThing(noun, MASK, y, x) for noun, x, y in things), ground, ~MASK)


def scene(*groups, relation=None, ground=None):
    return Scene(groups, relation, ground, False)


@pytest.mark.parametrize(
    ("asked", "shown", "right", "questions"),
    [
        pytest.param(scene(DOG), picture(("dog", 9, 9)), (1, 1, 0, 0), (1, 1, 0, 0), id="ok"),
        pytest.param(scene(DOG), picture(), (0, 0, 0, 0), (1, 1, 0, 0), id="nothing there"),
        pytest.param(
            scene(DOG), picture(("wolf", 9, 9)), (0, 0, 0, 0), (1, 1, 0, 0), id="a look-alike"
        ),
        pytest.param(
            scene(TWO_BUSES), picture(("bus", 9, 9)), (1, 0, 0, 0), (2, 1, 0, 0), id="one too few"
        ),
        pytest.param(
            scene(DOG),
            picture(("dog", 9, 9), ("dog", 40, 9)),
            (1, 0, 0, 0),
            (1, 1, 0, 0),
            id="one too many",
        ),
        pytest.param(
            scene(DOG, TWO_BUSES, relation="left"),
            picture(("dog", 9, 9), ("bus", 30, 9), ("bus", 50, 9)),
            (3, 2, 1, 0),
            (3, 2, 1, 0),
            id="relation right",
        ),
        pytest.param(
            scene(DOG, TWO_BUSES, relation="right"),
            picture(("dog", 9, 9), ("bus", 30, 9), ("bus", 50, 9)),
            (3, 2, 0, 0),
            (3, 2, 1, 0),
            id="relation reversed",
        ),
        pytest.param(
            scene(DOG, TWO_BUSES, relation="and"),
            picture(("dog", 9, 9), ("bus", 30, 9), ("bus", 50, 9)),
            (3, 2, 0, 0),
            (3, 2, 0, 0),
            id="and asks for no relation",
        ),
        pytest.param(
            scene(DOG, ground="grass"),
            picture(("dog", 9, 9)),
            (1, 1, 0, 1),
            (1, 1, 0, 1),
            id="ground right",
        ),
        pytest.param(
            scene(DOG, ground="sand"),
            picture(("dog", 9, 9)),
            (1, 1, 0, 0),
            (1, 1, 0, 1),
            id="ground wrong",
        ),
    ],
)
def test_known_answers(asked, shown, right, questions):
    answer = follow(asked, shown)
    assert tuple(answer.right[kind] for kind in KINDS) == right
    assert tuple(answer.asked[kind] for kind in KINDS) == questions
