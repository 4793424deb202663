"""``wordlight study entanglement``: painters that entangle nothing, or all."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from tests.comparisons.painter import SIDE, Painter, planted
from wordlight.attribution import registry
from wordlight.backends.scenes.grammar import COLOURS, GROUNDS, SHAPES, UNSEEN_PAIRS, split_of
from wordlight.backends.scenes.render import signed_distance
from wordlight.comparisons.cli.main import main
from wordlight.comparisons.studies import entanglement as e

GRID = np.mgrid[0:SIDE, 0:SIDE] + 0.5
PLACES = (18, 46)
RADIUS = 12.0


def paint(prompt, seed, *, same_shapes=False, spills=False):
    """Each object in a half of its own, whatever the seed."""
    ground = re.search(r"on a (\w+) background", prompt)
    image = np.empty((SIDE, SIDE, 3), np.uint8)
    image[:] = GROUNDS[ground.group(1)]
    asked = re.findall(rf"({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})", prompt)
    for place, (colour, shape) in enumerate(asked):
        if same_shapes:
            shape = asked[0][1]
        inside = signed_distance(shape, GRID[1] - PLACES[place], GRID[0] - 32, RADIUS) < 0
        image[inside] = COLOURS[colour]
        if spills and place == 0:
            # The first colour also tints a strip of ground, far from both objects.
            image[:4] = COLOURS[colour]
    return image


def method(monkeypatch, regions):
    kind = planted(regions)
    known = registry.get
    monkeypatch.setattr(registry, "get", lambda name: kind if name == "planted" else known(name))


def everywhere(colours=np.s_[:], shapes=np.s_[:], ground=np.s_[:]):
    return {
        **dict.fromkeys(COLOURS, colours),
        **dict.fromkeys(SHAPES, shapes),
        "background": ground,
    }


@pytest.fixture
def found(monkeypatch):
    """Of a faithful painter, with maps of shapes on the left quarter, of the ground on the left
    half and of colours on all."""
    method(monkeypatch, everywhere(shapes=np.s_[:, :16], ground=np.s_[:, :32]))
    return e.study_entanglement(Painter(paint), n=6, method="planted")


def test_a_faithful_painter_loses_nothing(found):
    for condition in (e.ALONE, e.SAME_NOUN, e.COHYPONYMS):
        right = found.estimate(e.RIGHT, condition)
        # Shares that are all 1 say little of how many others there are: Clopper and Pearson's.
        assert (right.mean, right.high) == (1, 1)
        assert right.low == pytest.approx(0.025 ** (1 / 6))
    for condition in (e.FROM_ALONE, e.FROM_SAME):
        estimate = found.estimate(e.LOSS, condition)
        assert (estimate.mean, estimate.low, estimate.high) == (0, 0, 0)
        assert estimate.n == 12
    assert found.dropped == 0


def test_overlaps_are_those_on_paper(found):
    assert found.estimate(e.OVERLAP, e.COHYPONYMS).mean == 1
    assert found.estimate(e.OVERLAP, e.SAME_NOUN).mean == 1
    assert found.estimate(e.OVERLAP, e.WITH_GROUND).mean == 0.5


def test_an_adjective_that_lies_everywhere_is_as_good_as_an_even_map(found):
    even = found.estimate(e.OUTSIDE, e.EVEN)
    assert found.estimate(e.OUTSIDE, e.ADJECTIVE).mean == pytest.approx(even.mean)
    assert found.estimate(e.MASK_OUTSIDE, e.ADJECTIVE).mean == pytest.approx(even.mean)


def test_only_the_object_itself_changes_colour(found):
    own = found.estimate(e.ON_OWN, e.REPLACED)
    least = min(
        np.sqrt(np.mean(np.square(np.subtract(a, b) / 255)))
        for a in COLOURS.values()
        for b in COLOURS.values()
        if a != b
    )
    # The segmenter's mask may have a rim of a pixel that isn't the object's own.
    assert own.mean > 0.9 * least
    assert found.estimate(e.ON_OTHER, e.REPLACED).mean == 0
    assert found.estimate(e.ON_GROUND, e.REPLACED).mean == pytest.approx(0, abs=1e-3)
    for where in (e.ON_OWN, e.ON_OTHER, e.ON_GROUND):
        for control in (e.FULL_STOP, e.OTHER_NOISE):
            assert found.estimate(where, control).mean == 0


def test_a_painter_that_confuses_cohyponyms_loses_half(monkeypatch):
    method(monkeypatch, everywhere())
    painter = Painter(lambda prompt, seed: paint(prompt, seed, same_shapes=True))
    found = e.study_entanglement(painter, n=6, method="planted")
    assert found.estimate(e.RIGHT, e.ALONE).mean == 1
    assert found.estimate(e.RIGHT, e.SAME_NOUN).mean == 1
    assert found.estimate(e.RIGHT, e.COHYPONYMS).mean == 0.5
    assert found.estimate(e.LOSS, e.FROM_ALONE).mean == 0.5
    assert found.estimate(e.LOSS, e.FROM_SAME).mean == 0.5


def test_a_painter_that_paints_nothing_is_dropped_and_counted(monkeypatch):
    method(monkeypatch, everywhere())
    found = e.study_entanglement(
        Painter(lambda *_: np.zeros((SIDE, SIDE, 3), np.uint8)), n=3, method="planted"
    )
    assert found.dropped == 6
    assert found.estimate(e.ON_OTHER, e.REPLACED).n == 0
    assert found.estimate(e.RIGHT, e.ALONE).mean == 0
    json.dumps(found.to_json(), allow_nan=False)


def test_share_outside_is_that_of_the_positive_part(monkeypatch):
    from wordlight.attribution.maps import WordMap
    from wordlight.attribution.words import Word

    values = np.zeros((4, 4), np.float32)
    values[0], values[1], values[3] = 3, 1, -5
    mask = np.zeros((4, 4), bool)
    mask[0] = True
    image = np.zeros((4, 4, 3), np.uint8)
    word_map = WordMap(Word("red", 0, 3, (1,)), values, True, image)
    assert e.share_outside(word_map, mask) == pytest.approx(0.25)
    nothing = WordMap(word_map.word, np.minimum(values, 0), True, image)
    assert e.share_outside(nothing, mask) == 0.75


def test_prompts_are_of_the_test_split_and_ask_for_nothing_unseen():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        scene = e.pair_scene(rng)
        first, second = scene.groups
        assert split_of(scene) == "test"
        assert first.colour != second.colour
        assert first.shape != second.shape
        for place in (0, 1):
            other = e.recoloured(scene, place, rng)
            assert not other.pairs & UNSEEN_PAIRS
            assert other.groups[1 - place] == scene.groups[1 - place]
            assert other.groups[place].shape == scene.groups[place].shape
            assert other.groups[place].colour not in {first.colour, second.colour}


def test_the_command_prints_and_writes(monkeypatch, tmp_path, capsys):
    method(monkeypatch, everywhere())
    monkeypatch.setattr("wordlight.backends.loading.load", lambda *_a, **_k: Painter(paint))
    line = ["study", "entanglement", "-n", "2", "--steps", "1", "--method", "planted", "--quiet"]
    assert main([*line, "-o", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "entanglement.txt").read_text() == printed
    assert "cohyponyms worsens generation by 9 %" in " ".join(printed.split())
    assert main([*line, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data == json.loads((tmp_path / "entanglement.json").read_text())
    assert len(data["cohyponyms"]) == 8
    assert data["images"] == 2
