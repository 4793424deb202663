"""Metrics of maps and masks, against hand counts, reference libraries and their own properties."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import jaccard_score, precision_recall_curve, roc_auc_score
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_jaccard_index,
)

from wordlight.attribution.maps import WordMap
from wordlight.attribution.words import Word
from wordlight.comparisons.datasets import ScoredWord
from wordlight.comparisons.metrics.assignment import (
    argmax_ious,
    argmax_masks,
    matched_ious,
    matched_ious_of,
)
from wordlight.comparisons.metrics.boundary import boundary_f
from wordlight.comparisons.metrics.dice import dice
from wordlight.comparisons.metrics.judged import JudgedImage, Thresholds
from wordlight.comparisons.metrics.overlap import iou, iou_at, iou_of_word
from wordlight.comparisons.metrics.pointing import energy_inside, pointing_game
from wordlight.comparisons.metrics.ranking import auroc, average_precision
from wordlight.comparisons.metrics.segmentation import (
    ABSOLUTE_CURVE,
    METRICS,
    NORMALISED_CURVE,
    threshold_curve,
)
from wordlight.comparisons.metrics.shown_map import ShownMap
from wordlight.comparisons.runs.scoring import scored

SIZE = (6, 5)
NAMES = [metric.name for metric in METRICS]
#: Of the scale that a map is on: they change when it is shifted, and the absolute one when it is
#: multiplied too.
OF_SCALE = {"miou@max-0.3", "miou@max-0.4", "miou@max-0.5", "ebpg", "miou@absolute"}
#: scikit-learn checks its arguments for a millisecond, and some tests ask it a dozen times.
few = settings(max_examples=20)

masks = hnp.arrays(bool, SIZE)
full_masks = masks.filter(lambda m: m.any())
part_masks = full_masks.filter(lambda m: not m.all())
# Whole numbers: their min-max is exact, so that a threshold can't be missed by rounding.
values = hnp.arrays(np.float32, SIZE, elements=st.integers(-100, 100).map(float))


def word_map(array, signed=False, image_size=None):
    height, width = image_size or array.shape
    image = np.zeros((height, width, 3), np.uint8)
    return WordMap(Word("it", 0, 2, (1,)), np.asarray(array, np.float32), signed, image)


def shown(array, **options):
    return ShownMap(word_map(np.asarray(array), **options))


def image_of(maps, masks, threshold=0.5, absolute=0.5):
    """An image of these words' maps."""
    words = [
        ScoredWord(Word(f"w{k}", k, k + 1, (k + 1,)), "shape-noun", k, mask, headline=True)
        for k, mask in enumerate(masks)
    ]
    by_id = {id(word): one for word, one in zip(words, maps, strict=True)}
    item = SimpleNamespace(words=words)
    return JudgedImage(
        item, None, thresholds=Thresholds(threshold, absolute), map_of=lambda w: by_id[id(w)]
    )


def score(one, mask, threshold=0.5, absolute=0.5):
    """Every metric of one headline word."""
    judged = image_of([one], [mask], threshold, absolute)
    return {name: value for _, name, value in scored(judged, METRICS)}


def test_iou_by_hand():
    first = np.array([[1, 1, 0], [0, 1, 0]], bool)
    second = np.array([[1, 0, 0], [0, 1, 1]], bool)
    assert iou(first, second) == 2 / 4


@given(masks, masks)
@few
def test_iou_is_symmetric_bounded_and_the_libraries(first, second):
    if not (first | second).any():
        with pytest.raises(ValueError, match="empty"):
            iou(first, second)
        return
    found = iou(first, second)
    assert found == iou(second, first)
    assert 0 <= found <= 1
    assert found == pytest.approx(jaccard_score(first.ravel(), second.ravel()))
    theirs = binary_jaccard_index(torch.as_tensor(first), torch.as_tensor(second))
    # torchmetrics computes in float32.
    assert found == pytest.approx(float(theirs), abs=1e-6)


@given(full_masks)
@few
def test_a_mask_finds_itself_and_not_its_complement(mask):
    assert iou(mask, mask) == 1
    assert iou(mask, ~mask) == 0
    perfect = score(word_map(mask), mask)
    # Of a mask that is the whole image nothing lies outside, to be ranked below it.
    wanted = [name for name in NAMES if name != "auroc" or not mask.all()]
    assert perfect == dict.fromkeys(wanted, 1.0)


@given(part_masks)
@few
def test_the_complement_finds_nothing(mask):
    wrong = score(word_map(~mask), mask)
    for metric in NAMES:
        if metric == "ap":
            assert wrong["ap"] <= mask.mean() + 1e-12
        else:
            assert wrong[metric] == 0, metric


@given(values, part_masks, st.booleans())
@few
def test_every_metric_lies_between_zero_and_one(array, mask, signed):
    found = score(word_map(array, signed=signed), mask, 0.25, 3.0)
    assert set(found) == set(NAMES)
    assert all(0 <= value <= 1 for value in found.values())


@given(values, part_masks, st.integers(1, 50), st.integers(-500, 500))
@few
def test_scale_and_offset_change_only_metrics_of_the_scale(array, mask, scale, offset):
    first = score(word_map(array), mask, 0.35)
    for name, value in score(word_map(array * scale + offset), mask, 0.35).items():
        if name not in OF_SCALE:
            assert value == first[name], name
    for name, value in score(word_map(array * scale), mask, 0.35).items():
        if name != "miou@absolute":
            # A share of a sum, or of a maximum: rounded.
            assert value == pytest.approx(first[name], abs=1e-6), name


@given(values, part_masks)
@few
def test_threshold_free_metrics_change_with_the_order_alone(array, mask):
    # Strictly increasing, and of whole numbers up to 100 no two of its values round to one.
    bent = np.cbrt(array.astype(np.float64)) + array / 50
    for metric in (pointing_game, average_precision, auroc):
        assert metric(bent, mask) == pytest.approx(metric(array, mask), abs=1e-12)


@given(values, part_masks)
@few
def test_auroc_of_the_map_turned_round_is_what_is_left(array, mask):
    assert auroc(array, mask) + auroc(-array, mask) == pytest.approx(1)
    assert auroc(array, mask) == pytest.approx(auroc(-array, ~mask))


@given(values, part_masks)
@few
def test_ranking_metrics_are_torchmetrics_and_scikit_learns(array, mask):
    assert auroc(array, mask) == pytest.approx(roc_auc_score(mask.ravel(), array.ravel()))
    # It squashes values outside 0..1 through a sigmoid: whole numbers inside stay apart.
    scaled = torch.as_tensor(array + 100).ravel() / 200
    truth = torch.as_tensor(mask).ravel().int()
    for ours, theirs in ((auroc, binary_auroc), (average_precision, binary_average_precision)):
        assert ours(array, mask) == pytest.approx(float(theirs(scaled, truth)), abs=1e-5)


@given(st.floats(-1e6, 1e6, width=32), part_masks, st.booleans(), st.sampled_from([0.5, 20.0]))
@few
def test_a_constant_map_is_the_whole_image(value, mask, signed, absolute):
    found = score(word_map(np.full(SIZE, value), signed=signed), mask, 0.7, absolute)
    assert found.pop("auroc") == 0.5
    assert found == pytest.approx(dict.fromkeys(found, mask.mean()))


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-7, -2.7, 12345.678])
def test_a_constant_map_stays_constant_when_it_is_resized(value):
    mask = np.zeros((64, 48), bool)
    mask[3:20, 5:9] = True
    found = score(word_map(np.full((16, 12), value), image_size=(64, 48)), mask)
    assert found.pop("auroc") == 0.5
    assert found == pytest.approx(dict.fromkeys(found, mask.mean()))


def test_negative_parts_of_a_signed_map_do_not_count():
    array = np.array([[4.0, 0.0, -4.0]])
    mask = np.array([[True, False, False]])
    assert score(word_map(array, signed=True), mask)["miou@0.3"] == 1
    # Unsigned, the middle is halfway up.
    assert score(word_map(array), mask)["miou@0.3"] == 1 / 2


def test_the_scales_by_hand():
    mask = np.array([[True, True, False, False]])
    (one,) = image_of([word_map(np.array([[10.0, 6.0, 5.0, 2.0]]))], [mask]).words
    # Min-max: 1, 1/2, 3/8, 0. Shares of the maximum: 1, 0.6, 0.5, 0.2.
    assert iou_of_word(one, threshold=0.5) == 1
    assert iou_of_word(one, threshold=0.5, scale="max") == pytest.approx(2 / 3)
    assert iou_of_word(one, threshold=0.2, scale="max") == pytest.approx(2 / 4)
    assert iou_of_word(one, threshold=10.0, scale="absolute") == pytest.approx(1 / 2)
    assert iou_of_word(one, threshold=10.5, scale="absolute") == 0


def test_thresholds_count_from_their_value_on():
    array = np.array([[0, 1, 2, 3, 4]], np.float32) / 4
    mask = np.array([[False, False, False, False, True]])
    assert iou_at(array, mask, (0.25, 0.5, 0.75, 0.76)) == (1 / 4, 1 / 3, 1 / 2, 1.0)


@given(values, full_masks, st.lists(st.floats(-1, 1.5), min_size=1, max_size=5))
def test_many_cuts_at_once_are_the_single_ones(array, mask, thresholds):
    one = shown(array).normalised
    by_hand = tuple(iou(one >= threshold, mask) for threshold in thresholds)
    assert iou_at(one, mask, thresholds) == by_hand


def test_pointing_game_shares_ties():
    array = np.array([[2.0, 2.0, 1.0], [0.0, 2.0, 0.0]])
    mask = np.array([[True, False, True], [True, True, True]])
    assert pointing_game(array, mask) == pytest.approx(2 / 3)


def test_energy_is_the_share_of_the_positive_mass():
    array = np.array([[3.0, 1.0, -8.0]])
    mask = np.array([[True, False, True]])
    assert energy_inside(np.maximum(array, 0), mask) == 3 / 4
    assert score(word_map(array), mask)["ebpg"] == 3 / 4
    with pytest.raises(ValueError, match="positive part"):
        energy_inside(array, mask)


@given(values, full_masks)
@few
def test_average_precision_is_the_step_sum_under_the_curve(array, mask):
    precision, recall, _ = precision_recall_curve(mask.ravel(), array.ravel())
    by_hand = -np.sum(np.diff(recall) * precision[:-1])
    assert average_precision(array, mask) == pytest.approx(by_hand)


@given(values, part_masks)
@few
def test_the_curve_agrees_with_the_metrics(array, mask):
    curve = threshold_curve(word_map(array), mask)
    absolute = float(ABSOLUTE_CURVE[70].removeprefix("miou@absolute-"))
    found = score(word_map(array), mask, 0.65, absolute)
    assert tuple(curve) == (*NORMALISED_CURVE, *ABSOLUTE_CURVE)
    assert curve["miou@0.4"] == found["miou@0.4"]
    assert curve["miou@0.65"] == found["miou@best"]
    assert curve[ABSOLUTE_CURVE[70]] == found["miou@absolute"]


def test_the_mask_of_a_word_map_is_the_one_that_is_scored():
    array = np.random.default_rng(0).random((16, 16))
    mask = np.zeros((64, 64), bool)
    mask[:20, :30] = True
    one = word_map(array, image_size=(64, 64))
    assert score(one, mask, 0.45)["miou@best"] == iou(one.mask(0.45), mask)


def test_every_pixel_goes_to_the_word_that_is_highest_there():
    maps = [np.array([[0.9, 0.5, 0.2, 0.1]]), np.array([[0.1, 0.5, 0.8, 0.3]])]
    first, second = argmax_masks(maps, 0.25)
    # The second pixel is a tie, and both's.
    assert first.tolist() == [[True, True, False, False]]
    assert second.tolist() == [[False, True, True, True]]
    assert argmax_masks(maps, 0.85)[1].tolist() == [[False] * 4]


@given(st.lists(st.tuples(values, part_masks), min_size=1, max_size=4))
@few
def test_matching_scores_no_less_than_the_words_own_masks_and_in_any_order(pairs):
    found = [shown(array).normalised >= 0.4 for array, _ in pairs]
    truth = [mask for _, mask in pairs]
    own = sum(iou(one, mask) for one, mask in zip(found, truth, strict=True))
    matched = matched_ious(found, truth)
    assert sum(matched) >= own - 1e-12
    assert sum(matched_ious(found[::-1], truth)) == pytest.approx(sum(matched))
    assert all(0 <= value <= 1 for value in matched)


def test_swapped_words_are_found_by_matching_alone():
    left = np.array([[1.0, 1.0, 0.0, 0.0]])
    truth = [left < 0.5, left > 0.5]
    words = image_of([word_map(left), word_map(1 - left)], truth).words
    assert argmax_ious(words) == [0, 0]
    assert matched_ious_of(words) == [1, 1]


def test_a_mask_that_nothing_is_left_for_scores_nothing():
    one, other = np.array([[True, False]]), np.array([[False, True]])
    assert matched_ious([other], [one, other]) == [0, 1]
    assert matched_ious([], [one]) == [0]
    assert matched_ious([one, other], [other]) == [1]


@pytest.mark.parametrize("metric", [pointing_game, average_precision, auroc, energy_inside])
def test_an_empty_mask_and_another_size_are_refused(metric):
    with pytest.raises(ValueError, match="empty"):
        metric(np.ones(SIZE), np.zeros(SIZE, bool))
    with pytest.raises(ValueError, match="sizes differ"):
        metric(np.ones(SIZE), np.ones((2, 2), bool))


def test_a_metric_that_gives_no_value_a_word_is_refused():
    one = replace(METRICS[0], name="one", over="words", score=lambda words: [1.0])
    pair = [word_map(np.eye(*SIZE))] * 2
    with pytest.raises(ValueError, match="one gives 1 values of 2 words"):
        list(scored(image_of(pair, [np.eye(*SIZE, dtype=bool)] * 2), [one]))


def test_one_that_is_undefined_is_left_out():
    whole = np.ones(SIZE, bool)
    assert "auroc" not in score(word_map(np.eye(*SIZE)), whole)
    assert "ap" in score(word_map(np.eye(*SIZE)), whole)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_map_that_is_not_finite_is_refused_and_not_scored(bad):
    values = np.ones((4, 4), np.float32)
    values[1, 2] = bad
    word, image = Word("dog", 0, 3, (1,)), np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="the map of 'dog' must be finite"):
        WordMap(word, values, False, image)
    with pytest.raises(ValueError, match="a map has NaN"):
        argmax_masks([np.full((4, 4), np.nan), np.ones((4, 4))], 0.4)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_mask_that_is_not_boolean_is_refused(kind):
    """Zeros and ones would be taken for the numbers of rows."""
    values, mask = np.random.default_rng(0).random((4, 4)), np.eye(4, dtype=bool)
    of_maps = [pointing_game, energy_inside, average_precision, auroc]
    of_maps.append(lambda values, mask: iou_at(values, mask, [0.4]))
    for metric in of_maps:
        metric(values, mask)
        with pytest.raises(TypeError, match="a mask is boolean"):
            metric(values, mask.astype(kind))
    for metric in (iou, dice, boundary_f):
        for pair in ((mask, mask.astype(kind)), (mask.astype(kind), mask)):
            with pytest.raises(TypeError, match="a mask is boolean"):
                metric(*pair)


@pytest.mark.parametrize(
    "metric",
    [
        pointing_game,
        energy_inside,
        average_precision,
        auroc,
        lambda values, mask: iou_at(values, mask, [0.4]),
    ],
)
@pytest.mark.parametrize("place", [0, 7])
def test_no_metric_takes_nan_for_a_value(metric, place):
    """Wherever it stands: inside the mask, whose energy would be all of it, or outside."""
    values, mask = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4), np.eye(4, dtype=bool)
    values.flat[place] = np.nan
    with pytest.raises(ValueError, match="the map has NaN"):
        metric(values, mask)


def test_infinite_energy_has_no_share():
    values = np.eye(4, dtype=np.float32)
    values[1, 1] = np.inf
    with pytest.raises(ValueError, match="infinite values"):
        energy_inside(values, np.eye(4, dtype=bool))
