"""The pictures and the renderer: the same on every machine, masks exact, occlusion bounded."""

import hashlib

import numpy as np
import pytest
from scipy import ndimage

from wordlight.backends.things.grammar import COLOURS, GROUNDS, SPLITS, Group, Scene
from wordlight.backends.things.grounds import draw_ground, noise
from wordlight.backends.things.nouns import HELD_OUT_STYLE, NOUNS, STYLES
from wordlight.backends.things.pictures import picture
from wordlight.backends.things.render import (
    MAX_COVERED,
    SIZE,
    covered_shares,
    render_scene,
    rendered,
    tinted,
)

# Changing the data makes every trained checkpoint and published figure another one: raise
# DATA_VERSION with it.
GOLDEN = {
    "train": "de7efbfdfa1693a7",
    "validation": "ec8f97f240cde231",
    "calibration": "6ba6acf94f1a54dd",
    "test": "23686c4b4f485407",
    "unseen-style": "36f5b56afd279f95",
    "unseen-pairs": "f78bfe524aa38a29",
    "look-alikes": "5666e00a924f4af0",
}
CASES = [("train", index) for index in range(80)]


@pytest.mark.parametrize("split", SPLITS)
def test_the_data_are_what_they_were(split):
    digest = hashlib.sha256()
    for index in range(8):
        scene = rendered(split, index)
        digest.update(scene.scene.prompt.encode())
        digest.update(scene.image.tobytes())
        for mask in scene.group_masks:
            digest.update(mask.tobytes())
    assert digest.hexdigest()[:16] == GOLDEN[split]


def test_every_noun_has_four_pictures_that_differ():
    for name in NOUNS:
        shown = [picture(name, style, 32) for style in STYLES]
        assert len({pixels.tobytes() for pixels in shown}) == len(STYLES), name
        for pixels in shown:
            assert max(pixels.shape[:2]) == 32
            # Weighted by alpha: no colour is above it.
            assert (pixels[..., :3] <= pixels[..., 3:]).all()
            # Something solid, up to the rim.
            solid = pixels[..., 3] >= 128
            assert solid.mean() > 0.1, name


def test_a_mirrored_picture_is_the_mirror_image():
    assert np.array_equal(picture("dog", "noto", 20, True), picture("dog", "noto", 20)[:, ::-1])


def test_an_unknown_noun_or_style_is_named():
    with pytest.raises(KeyError, match="unicorn"):
        picture("unicorn", "noto", 20)
    with pytest.raises(KeyError, match="oil"):
        picture("dog", "oil", 20)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_tint_changes_the_colour_and_not_the_outline(colour):
    plain, other = (tinted("car", "flat", 30, False, c) for c in (None, colour))
    assert np.array_equal(plain[..., 3], other[..., 3])
    body = other[other[..., 3] == 255][:, :3].astype(float)
    # A middle shade is the colour itself.
    assert np.abs(np.median(body, 0) - COLOURS[colour]).max() < 30
    assert not np.array_equal(plain, other)


def test_masks_are_disjoint_and_cover_the_image():
    for split, index in CASES:
        scene = rendered(split, index)
        layers = [*scene.group_masks, scene.ground_mask]
        assert (np.sum(layers, axis=0) == 1).all(), (split, index)


def test_every_content_word_has_a_mask():
    for split, index in CASES:
        scene = rendered(split, index)
        masks = scene.word_masks()
        for place, word in enumerate(scene.scene.words):
            assert (place in masks) == (word.referent is not None)
            if word.tag in ("NOUN", "ADJ", "NUM") and word.text not in ("left", "right", "front"):
                assert place in masks, (word, scene.scene.prompt)
        assert all(mask.any() and mask.shape == (SIZE, SIZE) for mask in masks.values())


def test_masks_are_the_pixels_that_a_thing_changes():
    """On another ground everything moves outside of all things, and nothing well inside."""
    groups = (Group(2, None, None, "apple"),)
    for seed in range(10):
        white, grey = (
            render_scene(Scene(groups, None, ground, False), np.random.default_rng(seed))
            for ground in ("white", "gray")
        )
        things = ~white.ground_mask
        assert np.array_equal(things, ~grey.ground_mask)
        # A pixel in a mask is more than half the thing's, one outside less.
        moved = np.abs(white.image.astype(float) - grey.image).mean(-1)
        full = np.median(moved[ndimage.binary_erosion(white.ground_mask)])
        assert moved[things].max() <= 0.5 * full + 2
        assert moved[~things].min() >= 0.5 * full - 2
        # Reducing a picture leaves its inside opaque to a few of 255 steps.
        assert moved[ndimage.binary_erosion(things, iterations=2)].max() <= 0.03 * full


def test_little_of_a_thing_is_covered():
    shares = [
        share
        for split, index in CASES
        for scene in [rendered(split, index)]
        for share in covered_shares(scene.scene, scene.objects)
    ]
    assert max(shares) <= MAX_COVERED
    # Some are covered at all, or the bound would say nothing.
    assert sum(share > 0.02 for share in shares) > 5


def test_things_of_one_group_do_not_touch():
    seen = 0
    for index in range(150):
        scene = rendered("train", index)
        if len(scene.scene.groups) == 1 and scene.scene.groups[0].count > 1:
            boxes = [(o.left, o.top, o.left + o.width, o.top + o.height) for o in scene.objects]
            for i, (l1, t1, r1, b1) in enumerate(boxes):
                for l2, t2, r2, b2 in boxes[:i]:
                    assert max(l2 - r1, l1 - r2, t2 - b1, t1 - b2) >= 2
            seen += 1
    assert seen > 10


def test_relations_hold_in_the_picture():
    seen = set()
    for index in range(200):
        scene = rendered("train", index)
        relation = scene.scene.relation
        if relation in (None, "and"):
            continue
        seen.add(relation)
        first, second = ([o for o in scene.objects if o.group == group] for group in range(2))
        if relation in ("right", "below"):
            first, second = second, first
        horizontal = relation in ("left", "right")
        ends = [o.x if horizontal else o.y for o in first]
        starts = [o.x if horizontal else o.y for o in second]
        assert max(ends) < min(starts), (index, scene.scene.prompt)
    assert seen == {"left", "right", "above", "below"}


def test_small_is_smaller_than_large():
    def side(size, seed):
        scene = Scene((Group(1, size, None, "dog"),), None, "sand", False)
        return render_scene(scene, np.random.default_rng(seed)).objects[0].side

    small, middle, large = ([side(s, i) for i in range(20)] for s in ("small", None, "large"))
    assert max(small) < min(middle)
    assert max(middle) < min(large)


def test_the_held_out_style_is_drawn_in_its_split_alone():
    for split, index in CASES:
        assert all(o.style != HELD_OUT_STYLE for o in rendered(split, index).objects)
    for index in range(20):
        assert {o.style for o in rendered("unseen-style", index).objects} == {HELD_OUT_STYLE}


@pytest.mark.parametrize("ground", GROUNDS)
def test_grounds_differ_from_each_other_and_by_chance(ground):
    one, other = (draw_ground(ground, SIZE, np.random.default_rng(seed)) for seed in (0, 1))
    assert one.shape == (SIZE, SIZE, 3)
    assert one.min() >= 0
    assert one.max() <= 255
    assert not np.array_equal(one, other)
    means = {
        name: draw_ground(name, SIZE, np.random.default_rng(0)).mean((0, 1)) for name in GROUNDS
    }
    apart = [np.abs(means[ground] - means[name]).max() for name in GROUNDS if name != ground]
    assert min(apart) > 20


def test_noise_interpolates_linearly_between_its_values():
    drawn = np.random.default_rng(3).uniform(-1.0, 1.0, (2, 2))
    found = noise(64, 1, 1, np.random.default_rng(3))
    # The middle of four values is their mean; half a pixel off it on either side.
    assert found[31:33, 31:33].mean() == pytest.approx(drawn.mean())
    assert np.allclose(np.diff(found, 2, axis=0), 0)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="no split 'dev'"):
        rendered("dev", 0)
    with pytest.raises(ValueError, match="index must be 0 or more, not -1"):
        rendered("test", -1)
