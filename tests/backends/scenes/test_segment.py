"""The segmenter against the renderer's exact masks, and against pictures that are wrong."""

import numpy as np
import pytest
from scipy import ndimage

from tests.backends.scenes.hue_segmenter import agreement
from wordlight import load
from wordlight.backends.prompts import GROUND
from wordlight.backends.scenes.grammar import SPLITS, Group, Scene
from wordlight.backends.scenes.render import SIZE, render_scene, rendered
from wordlight.backends.scenes.segment import segment
from wordlight.comparisons.datasets.images.generated_scenes import GeneratedScenes

IMAGES = 100


def scores(scene, image):
    """IoU with the exact mask of each word that the segmenter can be asked for."""
    found = segment(image).word_masks(scene.scene)
    for place, exact in scene.word_masks().items():
        mask = found.get(place, np.zeros_like(exact))
        yield (mask & exact).sum() / (mask | exact).sum()


def softened(image, rng):
    """Edges and colours about as soft as a model's own drawings."""
    blurred = ndimage.gaussian_filter(image.astype(float), (0.7, 0.7, 0))
    return np.clip(np.rint(blurred + rng.normal(0, 8, image.shape)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("split", SPLITS)
def test_masks_of_rendered_images_are_nearly_exact(split):
    drawn = [rendered(split, index) for index in range(IMAGES)]
    means = [np.mean(list(scores(scene, scene.image))) for scene in drawn]
    # Asked of the project; over 500 images it is 0.9997.
    assert np.mean(means) >= 0.95
    assert min(means) >= 0.8


def test_soft_and_noisy_images_are_segmented_too():
    rng = np.random.default_rng(0)
    drawn = [rendered("test", index) for index in range(IMAGES)]
    means = [np.mean(list(scores(scene, softened(scene.image, rng)))) for scene in drawn]
    # Half a pixel of edge is lost here and there: 0.973 when this was written.
    assert np.mean(means) >= 0.95


def draw(*groups, ground="black", relation=None, seed=0):
    scene = Scene(groups, relation, ground, full_stop=False)
    return render_scene(scene, np.random.default_rng(seed))


@pytest.mark.parametrize("split", SPLITS)
def test_objects_are_counted_and_named(split):
    for index in range(30):
        scene = rendered(split, index)
        found = segment(scene.image)
        named = sorted((o.colour, str(o.shape)) for o in found.objects)
        wanted = sorted((g.colour, g.shape) for g in scene.scene.groups for _ in range(g.count))
        assert named == wanted, (split, index)
        assert found.ground == scene.ground


def test_another_colour_gives_no_mask():
    asked = draw(Group(1, None, "red", "circle")).scene
    wrong = draw(Group(1, None, "yellow", "circle"))
    found = segment(wrong.image).word_masks(asked)
    referents = {asked.words[place].referent for place in found}
    assert referents == {GROUND}


def test_a_phrase_means_the_object_of_its_colour_however_it_was_drawn():
    asked = draw(Group(1, None, "red", "circle")).scene
    wrong = draw(Group(1, None, "red", "cross"))
    found = segment(wrong.image).word_masks(asked)
    assert {asked.words[place].referent for place in found} == {GROUND, 0}
    (circle,) = (m for place, m in found.items() if asked.words[place].text == "circle")
    cross = wrong.group_masks[0]
    assert (circle & cross).sum() / (circle | cross).sum() > 0.95


def test_phrases_of_one_colour_are_told_apart_by_shape():
    asked = draw(Group(1, None, "red", "circle"), Group(1, None, "red", "square")).scene
    wrong = draw(Group(1, None, "red", "cross"), Group(1, None, "red", "square"))
    found = segment(wrong.image).word_masks(asked)
    assert {asked.words[place].referent for place in found} == {GROUND, 1}


def test_another_ground_gives_the_ground_no_mask():
    asked = draw(Group(1, None, "red", "circle"), ground="black").scene
    wrong = draw(Group(1, None, "red", "circle"), ground="white")
    found = segment(wrong.image).word_masks(asked)
    assert {asked.words[place].referent for place in found} == {0}


def test_an_open_ground_has_no_words_and_no_mask():
    drawn = draw(Group(1, None, "red", "circle"), ground=None)
    assert set(segment(drawn.image).word_masks(drawn.scene)) == set(drawn.word_masks())


def test_two_objects_that_touch_are_two():
    image = np.full((SIZE, SIZE, 3), 12, np.uint8)
    image[20:40, 12:32] = (220, 30, 40)
    image[20:40, 32:52] = (40, 80, 225)
    found = segment(image)
    assert sorted((o.colour, o.shape) for o in found.objects) == [
        ("blue", "square"),
        ("red", "square"),
    ]
    areas = sorted(int(o.mask.sum()) for o in found.objects)
    # The two share an edge of 20 pixels.
    assert areas[0] >= 380
    assert areas[1] <= 420


def test_an_object_of_a_blended_colour_is_one():
    rng = np.random.default_rng(0)
    image = np.full((SIZE, SIZE, 3), 245.0)
    # Half way between orange and yellow, as a model draws it, a little to either side by chance.
    image[20:34, 12:26] = (250, 174, 26)
    image[20:34, 12:26] += rng.normal(0, 8, (14, 14, 3))
    (item,) = segment(np.clip(image, 0, 255).astype(np.uint8)).objects
    assert item.shape == "square"
    assert item.mask.sum() == 14 * 14


def test_two_objects_of_neighbouring_colours_that_touch_are_two():
    image = np.full((SIZE, SIZE, 3), 12, np.uint8)
    image[20:40, 12:32] = (250, 135, 15)
    image[20:40, 32:52] = (250, 220, 40)
    assert sorted(o.colour for o in segment(image).objects) == ["orange", "yellow"]


def test_the_edge_of_a_soft_object_is_half_way_to_its_inner_colour():
    cover = np.zeros((SIZE, SIZE))
    cover[20:28, 20:28] = 1
    cover = ndimage.gaussian_filter(cover, 2.0)
    cover /= cover.max()
    image = 12 + cover[..., None] * (np.array([40, 170, 70]) - 12)
    (item,) = segment(np.rint(image).astype(np.uint8)).objects
    assert np.array_equal(item.mask, cover > 0.5)


@pytest.fixture(scope="module")
def drawn():
    """The first validation images: the second one has a square between orange and yellow."""
    scenes = GeneratedScenes(load("scenes"), "validation", 3)
    seeds = [scenes.noise_seed(index) for index in range(3)]
    made = scenes.backend.sample(list(scenes.prompts), seed=seeds)
    return [(one.prompt, one.image) for one in made]


def test_masks_of_drawn_images_are_those_of_a_segmentation_by_hue(drawn):
    agreed = [iou for prompt, image in drawn for _, iou in agreement(image, prompt)]
    # The edge of a small object is a third of its pixels: 0.98 in the median of many.
    assert np.median(agreed) >= 0.95
    assert min(agreed) >= 0.8


def test_specks_are_no_objects():
    image = np.full((SIZE, SIZE, 3), 245, np.uint8)
    image[10:13, 10:13] = (220, 30, 40)
    found = segment(image)
    assert found.objects == ()
    assert found.ground == "white"
    assert found.ground_mask.all()


def test_a_stripe_has_a_colour_and_no_shape():
    image = np.full((SIZE, SIZE, 3), 12, np.uint8)
    image[30:34] = (40, 170, 70)
    (stripe,) = segment(image).objects
    assert stripe.colour == "green"
    assert stripe.shape is None


def test_the_place_is_the_centre_of_the_mask():
    image = np.full((SIZE, SIZE, 3), 12, np.uint8)
    image[10:20, 40:60] = (40, 170, 70)
    (item,) = segment(image).objects
    assert (item.y, item.x) == (15.0, 50.0)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((64, 64, 3), np.float32),
        np.zeros((64, 64), np.uint8),
        np.zeros((64, 64, 4), np.uint8),
        np.zeros((1, 64, 64, 3), np.uint8),
    ],
)
def test_what_is_no_image_raises(image):
    with pytest.raises(ValueError, match=r"must be \(height, width, 3\) uint8, not"):
        segment(image)
