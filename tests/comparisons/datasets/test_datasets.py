"""What is scored, what is dropped, and by which rule."""

from __future__ import annotations

import numpy as np
import pytest

from tests.comparisons.fakes import FakeBackend, tokenize
from wordlight.backends.scenes.grammar import SPLITS, Group, Scene, split_of
from wordlight.backends.scenes.render import render_scene
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.datasets import WordCounts, scene_item
from wordlight.comparisons.datasets.images.generated_scenes import GeneratedScenes
from wordlight.comparisons.metrics.judged import partner

TWO = Scene(
    (Group(1, "large", "red", "circle"), Group(2, None, "blue", "square")),
    "and",
    "black",
    full_stop=True,
)


def trajectory(scene: Scene, image) -> Trajectory:
    return Trajectory(
        prompt=scene.prompt,
        tokens=tokenize(scene.prompt),
        embeddings=np.zeros((32, 4)),
        empty_embeddings=np.zeros((32, 4)),
        timesteps=np.array([1.0]),
        latents=np.zeros((1, 4, 16, 16)),
        image=image,
        guidance_scale=1.0,
        model_id="",
        framework="fake",
    )


def item_of(asked: Scene, drawn: Scene, seed=0):
    image = render_scene(drawn, np.random.default_rng(seed)).image
    return scene_item("it", "test", asked, trajectory(asked, image))


def test_every_content_word_has_the_mask_of_what_it_names():
    drawn = render_scene(TWO, np.random.default_rng(0))
    item = scene_item("it", "test", TWO, trajectory(TWO, drawn.image))
    by_text = {scored.word.text: scored for scored in item.words}
    assert TWO.prompt == "a large red circle and two blue squares on a black background."
    assert {text: scored.category for text, scored in by_text.items()} == {
        "large": "size",
        "red": "colour",
        "circle": "shape-noun",
        "two": "number",
        "blue": "colour",
        "squares": "shape-noun",
        "black": "ground",
        "background": "ground",
    }
    assert not item.dropped
    for text, exact in (
        ("circle", drawn.group_masks[0]),
        ("two", drawn.group_masks[1]),
        ("black", drawn.ground_mask),
    ):
        mask = by_text[text].mask
        assert (mask & exact).sum() / (mask | exact).sum() > 0.9
    assert {scored.word.text for scored in item.words if scored.headline} == {"circle", "squares"}


def test_what_the_model_did_not_draw_is_dropped_and_counted():
    only_circle = Scene(TWO.groups[:1], None, "black", full_stop=True)
    item = item_of(TWO, only_circle)
    assert [scored.row for scored in item.words] == [
        "size",
        "colour",
        "one-object",
        "ground",
        "ground",
    ]
    assert sorted(item.dropped) == ["colour", "number", "shape-noun"]
    counts = WordCounts.of([item, item])
    assert counts.kept["ground"] == 4
    assert counts.dropped == {"shape-noun": 2, "colour": 2, "size": 0, "number": 2, "ground": 0}


def test_a_ground_of_another_colour_is_dropped():
    other = Scene(TWO.groups, "and", "white", full_stop=True)
    assert sorted(item_of(TWO, other).dropped) == ["ground", "ground"]


def test_equal_words_are_kept_apart_by_their_place():
    scene = Scene(
        (Group(1, None, "red", "cross"), Group(1, None, "blue", "cross")), "and", None, False
    )
    item = item_of(scene, scene)
    crosses = [scored for scored in item.words if scored.word.text == "cross"]
    assert [scored.word.occurrence for scored in crosses] == [0, 1]
    assert not (crosses[0].mask & crosses[1].mask).any()


def test_partners_are_words_of_another_object():
    item = item_of(TWO, TWO)
    partners = {s.word.text: p and p.word.text for s in item.words for p in [partner(item, s)]}
    assert partners["circle"] == "squares"
    assert partners["squares"] == "circle"
    assert partners["red"] == "blue"
    # Nothing else has a numeral or a size: any word of another object will do.
    assert partners["two"] == "large"
    assert partners["large"] == "two"
    lonely = item_of(TWO, Scene(TWO.groups[:1], None, "black", full_stop=True))
    assert [partner(lonely, s) for s in lonely.words if s.referent >= 0] == [None] * 3


def test_another_prompt_is_refused():
    other = Scene(TWO.groups, "and", "white", full_stop=True)
    image = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(ValueError, match="should be of"):
        scene_item("it", "test", other, trajectory(TWO, image))


def test_splits_share_no_prompt_and_no_noise():
    backend = FakeBackend()
    calibration = GeneratedScenes(backend, "calibration", 24)
    test = GeneratedScenes(backend, "test", 24)
    assert {split_of(scene) for scene in test.scenes} == {"test"}
    assert not {s.prompt for s in test.scenes} & {s.prompt for s in calibration.scenes}
    seeds = [one.noise_seed(i) for one in (calibration, test) for i in range(24)]
    assert len(set(seeds)) == 48
    assert GeneratedScenes(backend, "test", 4, seed=1).noise_seed(0) != test.noise_seed(0)
    # More images leave the first ones as they are.
    assert GeneratedScenes(backend, "test", 4).scenes == test.scenes[:4]


def test_images_are_drawn_once(tmp_path):
    backend = FakeBackend()
    first = list(GeneratedScenes(backend, "test", 11).stream(tmp_path))
    assert len(backend.drawn) == 11
    again = list(GeneratedScenes(backend, "test", 11).stream(tmp_path))
    assert len(backend.drawn) == 11
    for one, other in zip(first, again, strict=True):
        assert one.sample == other.sample
        assert np.array_equal(one.trajectory.image, other.trajectory.image)
        assert np.array_equal(one.trajectory.latents, other.trajectory.latents)
    # One that is missing is drawn in the company that it was first drawn in.
    (tmp_path / "scenes-test-0009.safetensors").unlink()
    list(GeneratedScenes(backend, "test", 11).stream(tmp_path))
    assert len(backend.drawn) == 11 + 3


@pytest.mark.parametrize(
    ("split", "n", "seed", "says"),
    [("tests", 1, 0, "no split 'tests'"), ("test", 0, 0, "at least one"), ("test", 1, -1, "seed")],
)
def test_bad_arguments(split, n, seed, says):
    with pytest.raises(ValueError, match=says):
        GeneratedScenes(FakeBackend(), split, n, seed)


def test_there_are_the_splits_that_are_used():
    assert {"calibration", "test"} <= set(SPLITS)
