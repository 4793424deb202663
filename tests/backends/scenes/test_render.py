"""The renderer: the same on every machine, its masks exact."""

import hashlib

import numpy as np
import pytest
from scipy import ndimage

from wordlight.backends.prompts import GROUND
from wordlight.backends.scenes.grammar import COLOURS, GROUNDS, SPLITS
from wordlight.backends.scenes.render import SIZE, rendered, signed_distance

# Changing the data makes every trained checkpoint and published figure another one: raise
# DATA_VERSION with it.
GOLDEN = {
    "train": "221f93112bd30466",
    "validation": "f2fc567d64c4d5e1",
    "calibration": "ab13b4ed454a3139",
    "test": "163efcb1f3f04bfd",
    "unseen-pairs": "01aaeb53f5796a6f",
}
CASES = [(split, index) for split in SPLITS for index in range(30)]


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


def test_index_and_seed_change_the_scene():
    images = [
        rendered("test", index, seed).image.tobytes() for index in range(5) for seed in (0, 1)
    ]
    assert len(set(images)) == len(images)


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
        assert all(mask.any() and mask.shape == (SIZE, SIZE) for mask in masks.values())


def test_masks_show_what_their_words_say():
    for split, index in CASES:
        scene = rendered(split, index)
        for place, mask in scene.word_masks().items():
            referent = scene.scene.words[place].referent
            if referent == GROUND:
                colour = GROUNDS[scene.ground]
            else:
                colour = COLOURS[scene.scene.groups[referent].colour]
            # A little in from the edge nothing is blended any more: above a triangle's apex the
            # ground is two pixels away, everywhere else one.
            depth = 2 if referent == GROUND else 1
            inside = ndimage.binary_erosion(mask, np.ones((3, 3)), depth, border_value=1)
            assert inside.any()
            assert (scene.image[inside] == colour).all(), (split, index)


def test_shapes_do_not_touch_and_none_is_cut_off():
    for split, index in CASES:
        scene = rendered(split, index)
        objects = ~scene.ground_mask
        grown = ndimage.binary_dilation(objects, np.ones((3, 3)))
        parts = ndimage.label(grown, np.ones((3, 3)))[1]
        wanted = sum(group.count for group in scene.scene.groups)
        assert parts == wanted == len(scene.objects), (split, index)
        border = np.concatenate([objects[[0, -1]], objects[:, [0, -1]].T])
        assert not border.any(), (split, index)


def test_relations_hold_in_the_picture():
    seen = set()
    for index in range(120):
        scene = rendered("test", index)
        relation = scene.scene.relation
        if relation in (None, "and"):
            continue
        seen.add(relation)
        first, second = (np.argwhere(mask) for mask in scene.group_masks)
        axis = 0 if relation in ("above", "below") else 1
        if relation in ("right", "below"):
            first, second = second, first
        assert first[:, axis].max() < second[:, axis].min(), (index, scene.scene.prompt)
    assert seen == {"left", "right", "above", "below"}


def test_small_is_smaller_than_large():
    areas = {"small": [], "large": []}
    for index in range(200):
        scene = rendered("train", index)
        for group, mask in zip(scene.scene.groups, scene.group_masks, strict=True):
            if group.size:
                crowded = len(scene.objects) > 2
                areas[group.size].append((crowded, group.shape, mask.sum() / group.count))
    for crowded in (False, True):
        for shape in ("circle", "square", "triangle", "cross"):
            small, large = (
                [a for c, s, a in areas[size] if (c, s) == (crowded, shape)]
                for size in ("small", "large")
            )
            assert max(small) < min(large)


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("circle", np.pi * 100),
        ("square", 18.0**2),
        # Height 19, and the base at 9 below the centre is 19 wide: slope 2, apex at -10.
        ("triangle", 19.0 * 19.0 / 2),
        ("cross", 2 * 20 * 6.8 - 6.8**2),
    ],
)
def test_shapes_have_the_area_on_paper(shape, area):
    ys, xs = np.mgrid[-12:12:600j, -12:12:600j]
    share = (signed_distance(shape, xs, ys, 10.0) < 0).mean()
    # Sampled at 25 points a unit: half a sample along the outline is under half a percent.
    assert share * 24.0**2 == pytest.approx(area, rel=5e-3)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="no split 'dev'"):
        rendered("dev", 0)
    with pytest.raises(ValueError, match="index must be 0 or more, not -1"):
        rendered("test", -1)
    with pytest.raises(ValueError, match="no shape 'star'"):
        signed_distance("star", np.zeros(1), np.zeros(1), 1.0)
