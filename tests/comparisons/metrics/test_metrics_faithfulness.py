"""Metrics of faithfulness on models whose answers are known on paper, and beside Captum's."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from captum.metrics import infidelity as captum_infidelity
from captum.metrics import sensitivity_max
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toys import ToyBackend, toy_trajectory
from wordlight.attribution.maps import WordMap
from wordlight.attribution.methods.controls import Uniform
from wordlight.attribution.methods.input_x_gradient import InputXGradient
from wordlight.attribution.methods.integrated_gradients import IntegratedGradients
from wordlight.attribution.methods.occlusion import Occlusion
from wordlight.attribution.methods.shapley import Shapley
from wordlight.attribution.words import Word
from wordlight.comparisons.metrics.faithfulness_infidelity import (
    best_scale,
    infidelity,
    infidelity_at_best_scale,
    infidelity_of_image,
    random_sets,
)
from wordlight.comparisons.metrics.faithfulness_order import (
    area_under,
    curve,
    deletion_sets,
    insertion_sets,
    word_order,
)
from wordlight.comparisons.metrics.faithfulness_removal import removal_iou, removal_rank
from wordlight.comparisons.metrics.faithfulness_sensitivity import (
    nearby,
    sensitivity,
)
from wordlight.comparisons.metrics.word_game import WordGame

STEPS = 2
TRAJECTORY = toy_trajectory("a red circle and a square")
WORDS = 6
EVERY_SET = (np.arange(1, 2**WORDS)[:, None] >> np.arange(WORDS) & 1).astype(bool)
#: float64 throughout, but maps are kept in float32.
ROUNDING = 1e-5


def game_on(backend):
    return WordGame(backend, TRAJECTORY, steps=STEPS)


def maps_of(method, game):
    maps = method.attribute(TRAJECTORY)
    return np.stack([np.asarray(maps.at(word), np.float64) for word in game.words])


@pytest.fixture(scope="module")
def linear():
    return ToyBackend()


@pytest.fixture(scope="module")
def shares(linear):
    """What each word is worth on the linear model, ``(words, y, x)``, from its matrix alone."""
    change = TRAJECTORY.embeddings - TRAJECTORY.empty_embeddings
    push = np.einsum("cyxtd,td->cyx", linear.jacobian, change)
    direction = push / np.linalg.norm(push, axis=0)
    by_token = np.einsum("cyxtd,td,cyx->tyx", linear.jacobian, change, direction)
    # Tokens 1 to 6 are the words.
    return by_token[1 : WORDS + 1], np.linalg.norm(push, axis=0)


def test_the_game_of_the_linear_model_is_a_sum(linear, shares):
    game = game_on(linear)
    worth, whole = shares
    assert [word.text for word in game.words] == "a red circle and a square".split()
    assert game.full == pytest.approx(whole)
    found = game.without(EVERY_SET)
    assert found == pytest.approx(whole - np.einsum("sw,wyx->syx", EVERY_SET * 1.0, worth))


def test_a_set_of_words_is_asked_for_once(linear):
    game = game_on(linear)
    before = linear.evaluations.forward
    game.without(EVERY_SET[:5])
    assert linear.evaluations.forward - before == 5 * STEPS
    game.without(EVERY_SET[3:7])
    assert linear.evaluations.forward - before == 7 * STEPS
    assert game.without(EVERY_SET[6:7]).shape == (1, 4, 6)
    assert linear.evaluations.forward - before == 7 * STEPS


@pytest.mark.parametrize("kind", [Occlusion, InputXGradient, IntegratedGradients, Shapley])
def test_complete_methods_have_no_infidelity_on_the_linear_model(linear, kind):
    game = game_on(linear)
    maps = maps_of(kind(linear, steps=STEPS), game)
    changes = game.full - game.without(EVERY_SET)
    for scaled in (False, True):
        assert infidelity(maps, EVERY_SET, changes, scaled=scaled) < ROUNDING


def test_occlusion_explains_single_words_of_any_model_and_sets_of_none_that_bends():
    bent = ToyBackend(bend="saturating")
    game = game_on(bent)
    maps = maps_of(Occlusion(bent, steps=STEPS), game)
    alone = np.eye(WORDS, dtype=bool)
    changes = game.full - game.without(alone)
    assert infidelity(maps, alone, changes, scaled=False) < ROUNDING
    assert infidelity(maps, EVERY_SET, game.full - game.without(EVERY_SET), scaled=False) > 0.01


def test_infidelity_of_two_words_that_only_count_together():
    # f is 1 with both words and 0 otherwise: taking out either or both changes it by 1.
    sets = np.array([[True, False], [False, True], [True, True]])
    changes = np.ones((3, 1, 1))
    half = np.full((2, 1, 1), 0.5)
    # Shapley's halves are off by 1/2 for each word alone, and right for both.
    assert infidelity(half, sets, changes, scaled=False) == pytest.approx((2 / 4) / 3)
    # Occlusion's ones are right for each alone, and off by 1 for both.
    assert infidelity(2 * half, sets, changes, scaled=False) == pytest.approx(1 / 3)
    # Of any multiple the best is that of Σ s·1 / Σ s² for s = 1/2, 1/2, 1: 2 / 1.5.
    assert best_scale(np.array([0.5, 0.5, 1.0]), np.ones(3)) == pytest.approx(4 / 3)
    best = ((4 / 3 * 0.5 - 1) ** 2 * 2 + (4 / 3 - 1) ** 2) / 3
    for scale in (0.01, 1, 7):
        assert infidelity(scale * half, sets, changes, scaled=True) == pytest.approx(best)


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_at_their_best_scale_maps_are_never_worse_than_zeros(seed):
    rng = np.random.default_rng(seed)
    maps, changes = rng.normal(size=(3, 2, 2)), rng.normal(size=(4, 2, 2))
    sets = random_sets(3, 4, seed)
    assert sets.any(axis=1).all()
    scaled = infidelity(maps, sets, changes, scaled=True)
    assert 0 <= scaled <= 1 + 1e-12
    assert scaled <= infidelity(maps, sets, changes, scaled=False) + 1e-12
    assert infidelity(0 * maps, sets, changes, scaled=False) == pytest.approx(1)
    # A map that points the wrong way isn't turned round.
    turned = np.einsum("sw,wyx->syx", sets * 1.0, maps)
    assert infidelity(-maps, sets, turned, scaled=True) == pytest.approx(1)
    assert infidelity(maps, sets, 0 * changes, scaled=True) is None


def test_random_sets_hold_each_word_half_of_the_time():
    sets = random_sets(8, 4000, seed=0)
    # Four standard errors of a share of 4000 draws.
    assert np.abs(sets.mean(axis=0) - 0.5).max() < 0.032
    assert np.array_equal(sets, random_sets(8, 4000, seed=0))


def test_infidelity_is_captums():
    bent = ToyBackend(bend="saturating")
    game = game_on(bent)
    maps = maps_of(IntegratedGradients(bent, steps=STEPS, n_steps=4), game)
    sets = random_sets(WORDS, 12, seed=3)
    y, x = 2, 5

    def value(present):
        removed = (present.numpy() < 0.5).astype(bool)
        return torch.as_tensor(game.without(removed)[:, y, x])

    def without(present):
        gone = torch.as_tensor(sets, dtype=torch.float64)
        return gone, present - gone

    present = torch.ones(1, WORDS, dtype=torch.float64)
    theirs = captum_infidelity(
        value,
        without,
        present,
        torch.as_tensor(maps[:, y, x])[None],
        n_perturb_samples=len(sets),
        max_examples_per_batch=len(sets),
    )
    changes = (game.full - game.without(sets))[:, y : y + 1, x : x + 1]
    ours = infidelity(maps[:, y : y + 1, x : x + 1], sets, changes, scaled=False)
    assert ours * np.square(changes).mean() == pytest.approx(float(theirs))


def test_the_order_is_by_the_score_in_the_region():
    maps = np.zeros((3, 1, 2))
    maps[:, 0, 0], maps[:, 0, 1] = [1.0, 3.0, 2.0], [9.0, 0.0, 1.0]
    left, right = np.array([[1.0, 0.0]]), np.array([[0.0, 0.5]])
    assert word_order(maps, left).tolist() == [1, 2, 0]
    assert word_order(maps, right).tolist() == [0, 2, 1]
    assert word_order(maps, left + right).tolist() == [0, 1, 2]


def test_equal_words_stand_in_a_drawn_order_and_not_in_the_prompts():
    orders = {tuple(word_order(np.ones((3, 1, 1)), np.ones((1, 1)), seed)) for seed in range(60)}
    # All six of them: that one is missing from 60 draws has a chance of 1e-4.
    assert len(orders) == 6


def test_words_go_one_by_one():
    assert deletion_sets(np.array([2, 0, 1])).astype(int).tolist() == [
        [0, 0, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1],
    ]  # fmt: skip


def test_areas_by_hand():
    assert area_under(np.array([1.0, 0.0])) == 0.5
    assert area_under(np.array([1.0, 0.0, 0.0])) == 0.25
    assert area_under(np.array([1.0, 1.0, 1.0, 1.0])) == 1


def test_curves_of_the_linear_model_are_sums_of_its_shares(linear, shares):
    game = game_on(linear)
    worth, whole = shares
    region = np.zeros((4, 6))
    region[1:3, 2:5] = 1
    maps = maps_of(Occlusion(linear, steps=STEPS), game)
    there = np.sort(np.einsum("wyx,yx->w", worth, region))
    total = (whole * region).sum()
    deleted = 1 - np.concatenate([[0], np.cumsum(there[::-1])]) / total
    assert curve(game, maps, region, deletion_sets) == pytest.approx(deleted, abs=ROUNDING)
    inserted = (total - there.sum() + np.concatenate([[0], np.cumsum(there[::-1])])) / total
    assert curve(game, maps, region, insertion_sets) == pytest.approx(inserted, abs=ROUNDING)


def area(game, maps, region, sets):
    return area_under(curve(game, maps, region, sets))


def test_no_order_deletes_faster_than_the_true_one(linear):
    game = game_on(linear)
    region = np.zeros((4, 6))
    region[0, :3] = 0.5
    maps = maps_of(Occlusion(linear, steps=STEPS), game)
    found = area(game, maps, region, deletion_sets)
    scores = np.zeros((WORDS, 4, 6))
    areas, inserted = [], []
    for order in permutations(range(WORDS)):
        scores[:, 0, 0] = -np.argsort(order)
        areas.append(area(game, scores, region, deletion_sets))
        inserted.append(area(game, scores, region, insertion_sets))
    assert len(areas) == 720
    assert found == pytest.approx(min(areas), abs=ROUNDING)
    best = area(game, maps, region, insertion_sets)
    assert best == pytest.approx(max(inserted), abs=ROUNDING)


def test_a_region_without_a_push_has_no_curve(linear):
    nowhere = np.zeros((4, 6))
    assert curve(game_on(linear), np.zeros((WORDS, 4, 6)), nowhere, deletion_sets) is None


def shown(array, signed=False):
    array = np.asarray(array, np.float32)
    return WordMap(Word("it", 0, 2, (1,)), array, signed, np.zeros((*array.shape, 3), np.uint8))


def test_removal_agreement_by_hand():
    change = shown([[0.0, 1.0, 2.0, 3.0]])
    assert removal_rank(change, change) == 1
    assert removal_rank(shown([[0.0, 1.0, 10.0, 11.0]]), change) == pytest.approx(1)
    assert removal_rank(shown([[3.0, 2.0, 1.0, 0.0]]), change) == pytest.approx(-1)
    assert removal_rank(shown([[1.0, 1.0, 1.0, 1.0]]), change) == 0
    # From 0.4 on the change is its last two pixels.
    assert removal_iou(change, change) == 1
    assert removal_iou(shown([[0.0, 0.0, 0.0, 5.0]]), change) == 1 / 2
    assert removal_iou(shown([[1.0, 1.0, 1.0, 1.0]]), change) == 2 / 4
    nothing = shown([[0.0, 0.0, 0.0, 0.0]])
    assert removal_rank(change, nothing) is removal_iou(change, nothing) is None


def test_sensitivity_by_hand():
    point = np.array([[3.0, 4.0]])
    others = [point + np.array([[0.1, 0.0]]), point + np.array([[0.0, -0.5]])]
    # Of the identity: the greatest distance over the norm of the point, 5.
    assert sensitivity(lambda e: e, point, others) == pytest.approx(0.5 / 5)
    assert sensitivity(lambda e: 7 * e, point, others) == pytest.approx(0.5 / 5)
    assert sensitivity(lambda e: np.ones(3), point, others) == 0
    assert sensitivity(lambda e: np.zeros(3), point, others) is None


def test_sensitivity_is_captums(linear):
    method = InputXGradient(linear, steps=STEPS)
    point = TRAJECTORY.embeddings
    others = nearby(point, radius=0.1, count=3, seed=0)

    def explain(embeddings):
        maps = method.attribute(replace(TRAJECTORY, embeddings=embeddings))
        return maps.data.values

    def theirs(inputs):
        (inputs,) = inputs if isinstance(inputs, tuple) else (inputs,)
        rows = [explain(row.numpy()) for row in inputs]
        # Captum iterates over a tensor that isn't in a tuple.
        return (torch.as_tensor(np.stack(rows), dtype=torch.float64),)

    def perturbed(inputs):
        (inputs,) = inputs if isinstance(inputs, tuple) else (inputs,)
        return torch.as_tensor(np.stack(others))[: len(inputs)]

    found = sensitivity_max(
        theirs,
        torch.as_tensor(point)[None],
        perturb_func=perturbed,
        n_perturb_samples=3,
        max_examples_per_batch=3,
    )
    assert sensitivity(explain, point, others) == pytest.approx(float(found), rel=1e-5)
    control = Uniform(linear)
    assert (
        sensitivity(
            lambda e: control.attribute(replace(TRAJECTORY, embeddings=e)).data.values,
            point,
            others,
        )
        == 0
    )


def test_what_is_nearby_is_no_farther_than_the_radius_and_of_the_same_kind():
    point = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    size = np.sqrt(np.square(point).mean())
    others = nearby(point, radius=0.02, count=5, seed=1)
    for other in others:
        assert other.dtype == point.dtype
        # Rounded to float32.
        assert np.abs(other - point).max() <= 0.02 * size * (1 + 1e-3)
    assert np.abs(others[0] - point).max() > 0.015 * size
    assert not np.array_equal(others[0], others[1])


def test_signed_maps_keep_their_scale_and_others_get_their_best(linear):
    game = game_on(linear)
    values = 3 * maps_of(Occlusion(linear, steps=STEPS), game)
    model = SimpleNamespace(game=game)

    def image(signed):
        return SimpleNamespace(values=values, model=model, seed=0, signed=signed)

    # Three times the truth is off by twice of it.
    assert infidelity_of_image(image(True)) == pytest.approx(4, rel=1e-4)
    assert infidelity_of_image(image(False)) < ROUNDING
    assert infidelity_at_best_scale(image(True)) < ROUNDING
    without = SimpleNamespace(values=None, signed=True)
    assert infidelity_of_image(without) is None
    assert infidelity_at_best_scale(without) is None
