"""Metrics of one map and one mask, against hand counts, scikit-learn and their own properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import jaccard_score, precision_recall_curve

from wordlight.attribution.maps import WordMap
from wordlight.attribution.words import Word
from wordlight.comparisons.segmentation import (
    METRICS,
    THRESHOLD_GRID,
    average_precision,
    iou,
    iou_at,
    pointing_game,
    score,
    threshold_curve,
)

SIZE = (6, 5)
masks = hnp.arrays(bool, SIZE)
full_masks = masks.filter(lambda m: m.any())
# Whole numbers: their min-max is exact, so that a threshold can't be missed by rounding.
values = hnp.arrays(np.float32, SIZE, elements=st.integers(-100, 100).map(float))


def word_map(array, signed=False, image_size=None):
    height, width = image_size or array.shape
    image = np.zeros((height, width, 3), np.uint8)
    return WordMap(Word("it", 0, 2, (1,)), np.asarray(array, np.float32), signed, image)


def test_iou_by_hand():
    first = np.array([[1, 1, 0], [0, 1, 0]], bool)
    second = np.array([[1, 0, 0], [0, 1, 1]], bool)
    assert iou(first, second) == 2 / 4


@given(masks, masks)
def test_iou_is_symmetric_bounded_and_scikit_learns(first, second):
    if not (first | second).any():
        with pytest.raises(ValueError, match="empty"):
            iou(first, second)
        return
    found = iou(first, second)
    assert found == iou(second, first)
    assert 0 <= found <= 1
    assert found == pytest.approx(jaccard_score(first.ravel(), second.ravel()))


@given(full_masks)
def test_a_mask_finds_itself_and_not_its_complement(mask):
    assert iou(mask, mask) == 1
    assert iou(mask, ~mask) == 0
    perfect = score(word_map(mask), mask, 0.5)
    assert perfect == dict.fromkeys(METRICS, 1.0)


@given(full_masks.filter(lambda m: not m.all()))
def test_the_complement_finds_nothing(mask):
    wrong = score(word_map(~mask), mask, 0.5)
    assert wrong["miou@0.5"] == wrong["pointing-game"] == 0
    assert wrong["ap"] <= mask.mean() + 1e-12


@settings(deadline=None)
@given(values, full_masks)
def test_every_metric_lies_between_zero_and_one(array, mask):
    found = score(word_map(array), mask, 0.25)
    assert tuple(found) == METRICS
    assert all(0 <= value <= 1 for value in found.values())


@given(values, full_masks, st.integers(1, 50), st.integers(-500, 500))
def test_scale_and_offset_change_no_metric(array, mask, scale, offset):
    assert score(word_map(array), mask, 0.35) == score(word_map(array * scale + offset), mask, 0.35)


@given(st.floats(-1e6, 1e6, width=32), full_masks)
@settings(max_examples=50)
def test_a_constant_map_is_the_whole_image(value, mask):
    found = score(word_map(np.full(SIZE, value)), mask, 0.7)
    assert found == pytest.approx(dict.fromkeys(METRICS, mask.mean()))


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-7, -2.7, 12345.678])
def test_a_constant_map_stays_constant_when_it_is_resized(value):
    mask = np.zeros((64, 48), bool)
    mask[3:20, 5:9] = True
    found = score(word_map(np.full((16, 12), value), image_size=(64, 48)), mask, 0.5)
    assert found == pytest.approx(dict.fromkeys(METRICS, mask.mean()))


def test_negative_parts_of_a_signed_map_do_not_count():
    array = np.array([[4.0, 0.0, -4.0]])
    mask = np.array([[True, False, False]])
    assert score(word_map(array, signed=True), mask, 0.5)["miou@0.3"] == 1
    # Unsigned, the middle is halfway up.
    assert score(word_map(array), mask, 0.5)["miou@0.3"] == 1 / 2


def test_thresholds_count_from_their_value_on():
    array = np.array([[0, 1, 2, 3, 4]], np.float32) / 4
    mask = np.array([[False, False, False, False, True]])
    assert iou_at(array, mask, (0.25, 0.5, 0.75, 0.76)) == (1 / 4, 1 / 3, 1 / 2, 1.0)


def test_pointing_game_shares_ties():
    array = np.array([[2.0, 2.0, 1.0], [0.0, 2.0, 0.0]])
    mask = np.array([[True, False, True], [True, True, True]])
    assert pointing_game(array, mask) == pytest.approx(2 / 3)


@given(values, full_masks)
def test_average_precision_is_the_step_sum_under_the_curve(array, mask):
    precision, recall, _ = precision_recall_curve(mask.ravel(), array.ravel())
    by_hand = -np.sum(np.diff(recall) * precision[:-1])
    assert average_precision(array, mask) == pytest.approx(by_hand)


@given(values, full_masks)
def test_the_curve_agrees_with_the_metrics(array, mask):
    curve = threshold_curve(word_map(array), mask)
    found = score(word_map(array), mask, 0.65)
    assert len(curve) == len(THRESHOLD_GRID) == 19
    assert curve["miou@0.4"] == found["miou@0.4"]
    assert curve["miou@0.65"] == found["miou@best"]


def test_the_mask_of_a_word_map_is_the_one_that_is_scored():
    array = np.random.default_rng(0).random((16, 16))
    mask = np.zeros((64, 64), bool)
    mask[:20, :30] = True
    shown = word_map(array, image_size=(64, 64))
    assert score(shown, mask, 0.45)["miou@best"] == iou(shown.mask(0.45), mask)


@pytest.mark.parametrize("metric", [pointing_game, average_precision])
def test_an_empty_mask_and_another_size_are_refused(metric):
    with pytest.raises(ValueError, match="empty"):
        metric(np.ones(SIZE), np.zeros(SIZE, bool))
    with pytest.raises(ValueError, match="sizes differ"):
        metric(np.ones(SIZE), np.ones((2, 2), bool))
