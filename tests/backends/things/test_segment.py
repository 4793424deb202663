"""The segmenter: its network on numpy, what is made of its output, and exact masks."""

import numpy as np
import pytest
from scipy import ndimage

from wordlight.backends.prompts import GROUND
from wordlight.backends.things.checking import check
from wordlight.backends.things.grammar import GROUNDS, Group, Scene
from wordlight.backends.things.nouns import NOUNS
from wordlight.backends.things.render import SIZE, render_scene, rendered
from wordlight.backends.things.segment import CLASSES, MIN_AREA, assemble, load_weights, segment


def output(*things, ground="sand"):
    """A network's output: things ``(noun, top, left, side)`` in pixels, all even."""
    covered = np.zeros((SIZE, SIZE), bool)
    scores = np.zeros((SIZE // 2, SIZE // 2, len(CLASSES)), np.float32)
    scores[..., CLASSES.index(ground)] = 1.0
    for noun, top, left, side in things:
        covered[top : top + side, left : left + side] = True
        cells = (slice(top // 2, (top + side) // 2), slice(left // 2, (left + side) // 2))
        scores[cells] = 0.0
        scores[(*cells, CLASSES.index(noun))] = 1.0
    return covered, scores


def test_two_things_apart_are_two_with_their_masks_and_centres():
    found = assemble(*output(("dog", 10, 10, 10), ("dog", 30, 40, 12)))
    assert [(o.noun, o.y, o.x, int(o.mask.sum())) for o in found.objects] == [
        ("dog", 15.0, 15.0, 100),
        ("dog", 36.0, 46.0, 144),
    ]
    assert found.ground == "sand"
    assert found.ground_mask.sum() == SIZE * SIZE - 244


def test_things_that_touch_are_parted_by_their_nouns():
    found = assemble(*output(("dog", 10, 10, 10), ("bus", 10, 20, 10)))
    assert sorted((o.noun, int(o.mask.sum())) for o in found.objects) == [
        ("bus", 100),
        ("dog", 100),
    ]


def test_a_little_of_another_noun_within_a_thing_is_that_thing():
    covered, scores = output(("wolf", 10, 10, 20))
    dog, wolf = CLASSES.index("dog"), CLASSES.index("wolf")
    # 3 by 3 cells, 36 of 400 pixels: less than a fifth.
    scores[6:9, 6:9, dog], scores[6:9, 6:9, wolf] = 1.0, 0.5
    (item,) = assemble(covered, scores).objects
    assert (item.noun, int(item.mask.sum())) == ("wolf", 400)


def test_specks_are_no_things():
    covered, scores = output()
    covered[4, 4 : 4 + MIN_AREA - 1] = True
    found = assemble(covered, scores)
    assert found.objects == ()
    assert found.ground_mask.all()


def test_words_have_the_masks_of_their_nouns():
    groups = (Group(2, None, None, "dog"), Group(1, None, "red", "bus"))
    scene = Scene(groups, "and", "sand", False)
    found = assemble(*output(("dog", 10, 10, 10), ("dog", 10, 30, 10)))
    masks = found.word_masks(scene)
    assert {scene.words[place].referent for place in masks} == {0, GROUND}
    dogs = masks[[w.text for w in scene.words].index("dogs")]
    assert dogs.sum() == 200
    elsewhere = assemble(*output(("dog", 10, 10, 10), ground="grass")).word_masks(scene)
    assert {scene.words[place].referent for place in elsewhere} == {0}


def test_rendered_things_are_found_and_named():
    """As is asked of the segmenter on validation scenes, which show the styles it learned from."""
    measured = check("validation", 100, load_weights())
    assert measured["iou"] >= 0.80, measured
    assert measured["class"] >= 0.90, measured
    assert measured["ground"] >= 0.98, measured


@pytest.mark.parametrize("split", ["unseen-pairs", "look-alikes", "unseen-style"])
def test_things_are_named_where_pairs_or_styles_are_new(split):
    measured = check(split, 40, load_weights())
    assert measured["class"] >= 0.90, measured
    assert measured["ground"] >= 0.98, measured


def test_blurred_and_noisy_pictures_are_segmented_too():
    rng = np.random.default_rng(0)
    right = []
    for index in range(40):
        item = rendered("test", index)
        blurred = ndimage.gaussian_filter(item.image.astype(float), (0.6, 0.6, 0))
        noisy = np.clip(np.rint(blurred + rng.normal(0, 5, blurred.shape)), 0, 255)
        found = segment(noisy.astype(np.uint8))
        right += [bool(found.members(item.scene, group)) for group in item.scene.groups]
    assert np.mean(right) >= 0.8


def test_an_empty_ground_shows_nothing():
    rng = np.random.default_rng(0)
    for ground in GROUNDS:
        scene = Scene((Group(1, "small", None, "dog"),), None, ground, False)
        item = render_scene(scene, rng)
        found = segment(item.image)
        assert found.ground == ground
        assert (found.ground_mask & item.ground_mask).sum() >= 0.98 * item.ground_mask.sum()


def test_classes_are_grounds_and_nouns():
    assert (*GROUNDS, *NOUNS) == CLASSES


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 64, 3), np.float32),
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((32, 32, 3), np.uint8),
    ],
)
def test_what_is_no_image_raises(image):
    with pytest.raises(ValueError, match=r"must be \(64, 64, 3\) uint8, not"):
        segment(image)
