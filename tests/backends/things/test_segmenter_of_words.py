"""The embedded segmenter as one that commands take: masks of words, in images of 64 by 64."""

import numpy as np
import pytest

from wordlight.backends.segmenters.loading import load_segmenter
from wordlight.backends.things.render import rendered
from wordlight.comparisons.rows.supervised import SegmenterAnnotator


@pytest.fixture(scope="module")
def things():
    return load_segmenter("things")


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def test_words_have_the_masks_of_what_they_name(things):
    found = []
    for index in range(12):
        drawn = rendered("test", index)
        annotations, missed = SegmenterAnnotator(things).annotate(drawn.scene.prompt, drawn.image)
        asked = {
            w.referent for w in drawn.scene.words if w.tag == "NOUN" and w.referent is not None
        }
        # Plain grounds are "a white background", which no class is called.
        asked -= {-1} if drawn.scene.ground in ("white", "gray", "night", None) else set()
        assert len(annotations) + len(missed) == len(asked), drawn.scene.prompt
        for one in annotations:
            places = one.place if isinstance(one.place, list) else [one.place]
            index_of = {w.start: i for i, w in enumerate(drawn.scene.words)}
            exact = drawn.word_masks()[index_of[places[0].start]]
            found.append(iou(one.mask, exact))
    # Its card says 0.845 of such pictures.
    assert np.mean(found) > 0.75


def test_a_word_of_no_class_has_no_mask_and_an_absent_one_an_empty_one(things):
    image = np.full((64, 64, 3), 245, np.uint8)
    unknown, absent = things.masks(image, ["gun", "buses"])
    assert unknown is None
    assert absent.shape == (64, 64)
    assert not absent.any()


def test_images_of_another_size_are_refused(things):
    with pytest.raises(ValueError, match=r"takes images of 64x64 pixels, .* not of 96x32"):
        things.masks(np.zeros((32, 96, 3), np.uint8), ["dog"])


def test_it_is_another_segmenter_than_none_but_itself(things):
    assert things.same_weights(load_segmenter("things"))
    assert things.identity.startswith("things:embedded@")
    with pytest.raises(ValueError, match=r"KIND:MODEL with one of .*, or as things, not 'thing'"):
        load_segmenter("thing")
