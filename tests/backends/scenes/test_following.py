"""How well a picture follows its prompt: cases whose answers are known."""

import math

import numpy as np
import pytest

from wordlight.backends.following import Following, total
from wordlight.backends.scenes.following import KINDS, follow
from wordlight.backends.scenes.grammar import SPLITS, Group, Scene
from wordlight.backends.scenes.render import rendered
from wordlight.backends.scenes.segment import FoundObject, Segmentation, segment

MASK = np.zeros((64, 64), bool)


def picture(*objects):
    """A segmentation with objects ``(colour, shape, x, y)``."""
    return Segmentation(
        tuple(FoundObject(colour, shape, 1.0, MASK, y, x) for colour, shape, x, y in objects),
        "black",
        ~MASK,
    )


def scene(*groups, relation=None):
    return Scene(tuple(Group(n, None, c, s) for n, c, s in groups), relation, None, False)


def right(asked, shown):
    answer = follow(asked, shown)
    return tuple(answer.right[kind] for kind in KINDS), tuple(answer.asked[kind] for kind in KINDS)


RED_CIRCLE = (1, "red", "circle")
BLUE_SQUARE = (1, "blue", "square")


@pytest.mark.parametrize(
    ("asked", "shown", "answers", "questions"),
    [
        pytest.param(
            scene(RED_CIRCLE), picture(("red", "circle", 9, 9)), (1, 1, 1, 0), (1, 1, 1, 0), id="ok"
        ),
        pytest.param(scene(RED_CIRCLE), picture(), (0, 0, 0, 0), (1, 1, 1, 0), id="nothing there"),
        pytest.param(
            scene(RED_CIRCLE),
            picture(("red", "cross", 9, 9)),
            (1, 0, 1, 0),
            (1, 1, 1, 0),
            id="colour right, shape wrong",
        ),
        pytest.param(
            scene(RED_CIRCLE),
            picture(("red", None, 9, 9)),
            (1, 0, 1, 0),
            (1, 1, 1, 0),
            id="colour right, shape unclear",
        ),
        pytest.param(
            scene(RED_CIRCLE),
            picture(("blue", "circle", 9, 9)),
            (0, 0, 0, 0),
            (1, 1, 1, 0),
            id="shape right, colour wrong",
        ),
        pytest.param(
            scene((3, "red", "circle")),
            picture(("red", "circle", 9, 9), ("red", "circle", 30, 9)),
            (2, 2, 0, 0),
            (3, 3, 1, 0),
            id="one too few",
        ),
        pytest.param(
            scene(RED_CIRCLE),
            picture(("red", "circle", 9, 9), ("red", "circle", 30, 9)),
            (1, 1, 0, 0),
            (1, 1, 1, 0),
            id="one too many",
        ),
        pytest.param(
            scene(RED_CIRCLE, BLUE_SQUARE, relation="left"),
            picture(("red", "circle", 9, 9), ("blue", "square", 40, 9)),
            (2, 2, 2, 1),
            (2, 2, 2, 1),
            id="relation right",
        ),
        pytest.param(
            scene(RED_CIRCLE, BLUE_SQUARE, relation="left"),
            picture(("red", "circle", 40, 9), ("blue", "square", 9, 9)),
            (2, 2, 2, 0),
            (2, 2, 2, 1),
            id="relation reversed",
        ),
        pytest.param(
            scene(RED_CIRCLE, BLUE_SQUARE, relation="above"),
            picture(("red", "circle", 9, 40), ("blue", "square", 9, 9)),
            (2, 2, 2, 0),
            (2, 2, 2, 1),
            id="above reversed",
        ),
        pytest.param(
            scene(RED_CIRCLE, BLUE_SQUARE, relation="below"),
            picture(("red", "circle", 9, 40), ("blue", "square", 9, 9)),
            (2, 2, 2, 1),
            (2, 2, 2, 1),
            id="below right",
        ),
        pytest.param(
            scene(RED_CIRCLE, BLUE_SQUARE, relation="right"),
            picture(("red", "circle", 9, 9)),
            (1, 1, 1, 0),
            (2, 2, 2, 1),
            id="relation to nothing",
        ),
        pytest.param(
            scene(RED_CIRCLE, BLUE_SQUARE, relation="left"),
            picture(("red", "circle", 20, 9), ("blue", "square", 21, 40)),
            (2, 2, 2, 0),
            (2, 2, 2, 1),
            id="neither left nor right",
        ),
        pytest.param(
            scene(RED_CIRCLE, BLUE_SQUARE, relation="and"),
            picture(("red", "circle", 9, 9), ("blue", "square", 9, 40)),
            (2, 2, 2, 0),
            (2, 2, 2, 0),
            id="and asks for no relation",
        ),
        pytest.param(
            scene(RED_CIRCLE, (1, "red", "square"), relation="left"),
            picture(("red", "circle", 9, 9), ("red", "square", 40, 9)),
            (2, 2, 2, 1),
            (2, 2, 2, 1),
            id="one colour twice, told apart by shape",
        ),
        pytest.param(
            scene(RED_CIRCLE, BLUE_SQUARE),
            picture(("red", "square", 9, 9), ("blue", "circle", 40, 9)),
            (2, 0, 2, 0),
            (2, 2, 2, 0),
            id="shapes swapped",
        ),
    ],
)
def test_known_answers(asked, shown, answers, questions):
    assert right(asked, shown) == (answers, questions)


@pytest.mark.parametrize("split", SPLITS)
def test_rendered_pictures_follow_their_prompts(split):
    drawn = [rendered(split, index) for index in range(40)]
    sums = total(follow(item.scene, segment(item.image)) for item in drawn)
    assert sums.right == sums.asked
    assert all(sums.asked.values())


def test_pictures_of_other_prompts_do_not():
    drawn = [rendered("test", index) for index in range(40)]
    shifted = zip(drawn, [*drawn[1:], drawn[0]], strict=True)
    shares = total(follow(a.scene, segment(b.image)) for a, b in shifted).shares()
    # By chance a colour is right where two of six colours meet, and a shape once in four of those.
    assert shares["colour"] < 0.5
    assert shares["shape"] < 0.25


def test_the_total_is_the_sum():
    one = Following(dict.fromkeys(KINDS, 1), dict.fromkeys(KINDS, 2))
    nothing = dict.fromkeys(KINDS, 0)
    other = Following(nothing | {"count": 3}, nothing | {"count": 4})
    shares = total([one, other]).shares()
    assert shares == {"colour": 0.5, "shape": 0.5, "count": 4 / 6, "relation": 0.5}


def test_nothing_asked_has_no_share():
    nothing = Following(dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0))
    assert all(math.isnan(share) for share in total([nothing]).shares().values())
    assert tuple(nothing.shares()) == KINDS
