"""Every metric passes ``check_metric``, which finds what is wrong with others.

Dice and the boundary F-score against other libraries and on paper.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import f1_score

from wordlight.comparisons.metrics import registry
from wordlight.comparisons.metrics.boundary import boundary, boundary_f
from wordlight.comparisons.metrics.dice import METRIC as DICE
from wordlight.comparisons.metrics.dice import dice
from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.metrics.overlap import iou
from wordlight.comparisons.metrics.testing import check_metric, judged, values

masks = hnp.arrays(bool, (6, 5))


@pytest.mark.parametrize("metric", registry.available().values(), ids=lambda metric: metric.name)
def test_conformance(metric: Metric) -> None:
    check_metric(metric)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"name": "Dice!"}, "it is called 'Dice!'"),
        ({"score": lambda word: float("nan")}, "a finite number, or None"),
        ({"score": lambda word: 7.0}, r"says that it lies in 0\.0\.\.1\.0"),
        ({"score": lambda word: "good"}, "a finite number, or None"),
        ({"score": lambda word, known=[]: (known.append(1), len(known) / 99)[1]}, "other values"),
        ({"constant": 0.5}, "of a map that is the same everywhere, and says constant=0.5"),
        ({"higher_is_better": False}, "is higher_is_better=False right"),
        ({"over": "words", "score": lambda words: [0.5], "constant": None}, "1 values of 2 words"),
        ({"over": "words", "score": lambda words: [0.4, 0.6], "constant": None}, "another order"),
        ({"needs": frozenset()}, "and so it needs masks"),
    ],
)
def test_what_is_wrong_is_found(changed: dict[str, object], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_metric(replace(DICE, **changed))  # type: ignore[arg-type]


def test_what_a_metric_asks_for_must_be_said() -> None:
    def regenerated(word):
        return float(word.change.values.mean())

    with pytest.raises(ValueError, match="can't need 'mask'"):
        Metric(name="one", score=regenerated, over="word", needs=frozenset({"mask"}))
    with pytest.raises(ValueError, match="its function takes no 'sets'"):
        Metric(name="one", score=regenerated, over="word", options={"sets": 2})


@given(masks, masks)
@settings(max_examples=25)
def test_dice_is_the_f_score_of_pixels_and_tells_what_iou_tells(first, second) -> None:
    if not (first.any() or second.any()):
        with pytest.raises(ValueError, match="empty"):
            dice(first, second)
        return
    found = dice(first, second)
    assert found == dice(second, first)
    assert found == pytest.approx(f1_score(first.ravel(), second.ravel()))
    overlap = iou(first, second)
    assert found == pytest.approx(2 * overlap / (1 + overlap))


def test_dice_is_of_the_map_at_the_rows_threshold() -> None:
    mask = np.array([[True, True, False, False]])
    # Cut at 0.5 of 0..1: the first and the third pixel.
    (found,) = values(DICE, judged([[[1.0, 0.0, 0.9, 0.2]]], [mask]))
    assert found == 2 * 1 / (2 + 2)


def test_the_boundary_is_what_touches_the_outside() -> None:
    mask = np.zeros((7, 7), bool)
    mask[1:6, 1:6] = True
    assert boundary(mask).sum() == 16
    assert not boundary(mask)[2:5, 2:5].any()
    # The edge of the image is outside too.
    assert boundary(np.ones((5, 5), bool)).sum() == 16


def test_boundary_f_by_hand() -> None:
    mask = np.zeros((40, 40), bool)
    mask[10:20, 10:20] = True
    assert boundary_f(mask, mask) == 1
    moved = np.roll(mask, 1, axis=0)
    # One pixel is within 0.75 % of the diagonal, 56.6 pixels, rounded up.
    assert boundary_f(moved, mask) == 1
    far = np.roll(mask, 15, axis=0)
    assert boundary_f(far, mask) == 0
    assert boundary_f(np.zeros_like(mask), mask) == 0
    # Without any tolerance the moved square's rim shares its two sides but for their ends: 9 of
    # 10 pixels a side, 18 of 36.
    shared = (boundary(moved) & boundary(mask)).sum() / boundary(mask).sum()
    assert boundary_f(moved, mask, tolerance=0) == pytest.approx(shared) == 18 / 36
    with pytest.raises(ValueError, match="nothing to find"):
        boundary_f(mask, np.zeros_like(mask))
    with pytest.raises(ValueError, match="sizes differ"):
        boundary_f(mask, np.ones((2, 2), bool))


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_boundary_f_is_symmetric_and_grows_with_the_tolerance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.random((2, 12, 9)) > 0.5
    found = [boundary_f(first, second, tolerance=t) for t in (0, 0.1, 0.3)]
    assert found == pytest.approx([boundary_f(second, first, tolerance=t) for t in (0, 0.1, 0.3)])
    assert found == sorted(found)
    assert 0 <= found[0] <= found[-1] <= 1


def test_metrics_by_name() -> None:
    def names(*asked):
        return [metric.name for metric in registry.resolve(asked)]

    assert names("order", "dice") == ["deletion", "insertion", "dice"]
    assert names("faithfulness", "order")[:3] == ["deletion", "insertion", "removal-rank"]
    assert len(names("segmentation")) == 14
    assert names("ap", "cost") == ["ap"]
    (one,) = registry.resolve([{"metric": "boundary-f", "tolerance": 0.1}])
    assert one.options == {"tolerance": 0.1}
    assert registry.parse("segmentation,infidelity,sets=4,dice") == [
        "segmentation",
        {"metric": "infidelity", "sets": 4},
        "dice",
    ]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["dise"], "no metric 'dise'; did you mean dice"),
        (["segmentatoin"], "did you mean segmentation"),
        ([], "nothing to measure"),
        ("dice", "must be a list of metrics, not the string|must be a list"),
        ([{"metric": "dice", "sets": 3}], "dice has no option 'sets'; it has: none"),
        ([{"metric": "infidelity", "sets": 0}], "sets of infidelity must be above 0"),
        ([{"metric": "infidelity", "sets": 2.5}], "must be a whole number, not 2.5"),
        ([{"metric": "sensitivity", "radius": "far"}], "must be a number, not 'far'"),
        (["infidelity", {"metric": "infidelity", "sets": 2}], "asked for twice"),
        ([{"sets": 3}], "needs its name as 'metric'"),
    ],
)
def test_metrics_that_cannot_be_had(asked, says) -> None:
    with pytest.raises(ValueError, match=says):
        registry.resolve(asked)
    with pytest.raises(ValueError, match="NAME,NAME"):
        registry.parse("sets=3,dice")
    with pytest.raises(ValueError, match="says sets of infidelity twice"):
        registry.parse("infidelity,sets=3,sets=4")
