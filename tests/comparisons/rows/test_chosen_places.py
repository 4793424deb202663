"""Rows whose layer and step the calibration split's masks choose."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.comparisons.fakes import STEPS, FakeBackend, scenes_by_prompt
from wordlight.attribution.testing.model import ToyModel
from wordlight.backends.attention import AttentionMean, AttentionMeans, AttentionQuery, Layer
from wordlight.backends.scenes.segment import segment
from wordlight.comparisons import compare
from wordlight.comparisons.metrics.ceiling import mask_on_grid
from wordlight.comparisons.rows.chosen_places import candidates
from wordlight.comparisons.rows.row import build_rows

#: The one place that finds words: a layer, and the last but one of the table's four steps.
GOOD, STEP = "up.good", 5


class OnePlace(FakeBackend):
    """Attends to the true masks in one layer and step, and evenly elsewhere."""

    capabilities = frozenset({"denoise", "attention"})
    layers = (Layer("down.bad", 2), Layer(GOOD, 2), Layer("up.worse", 2))

    def _attention(self, trajectory, query: AttentionQuery, steps, keys) -> AttentionMeans:
        query.check(self.layers)
        total = np.zeros((len(trajectory.tokens), *trajectory.grid))
        wanted = [layer.name for layer in self.layers if query.wants_layer(layer.name)]
        for name in wanted:
            for step in steps:
                right = (name, step) == (GOOD, STEP)
                total += self._masks(trajectory) if right else 0.5
        count = len(wanted) * len(steps)
        return AttentionMeans((AttentionMean((total / count).astype(np.float32), count),))

    def _masks(self, trajectory):
        maps = np.zeros((len(trajectory.tokens), *trajectory.grid))
        scene = scenes_by_prompt()[trajectory.prompt]
        for index, mask in segment(trajectory.image).word_masks(scene).items():
            start = scene.words[index].start
            token = [a for a, _ in trajectory.tokens.offsets[1:]].index(start) + 1
            maps[token] = mask_on_grid(mask, trajectory.grid)
        return maps


def test_the_place_that_finds_words_is_chosen_and_said_to_be(tmp_path) -> None:
    found = compare(
        OnePlace(),
        ["daam", {"method": "daam", "choose": ["step", "layer"]}, "uniform", "shuffled-word"],
        out=tmp_path,
        n=4,
        calibration=4,
        progress=False,
    )
    name = "daam-chosen-layer-step"
    assert found.choices[name].variant.options == {"layers": (GOOD,), "steps": (STEP,)}
    # It finds what the ceiling finds, and isn't ranked among rows that saw no mask.
    assert found.estimate(name).mean == pytest.approx(found.ceiling["miou@best"].mean)
    (entry,) = [one for one in found.table_rows if one.name == name]
    assert entry.extra
    assert entry.label == "daam (layer and step chosen by masks)"
    assert not any(
        name in (test.first, test.second) for tests in found.tests.values() for test in tests
    )
    assert f"with layers {GOOD}, steps {STEP}" in " ".join(found.text.split())
    assert f"shuffled-word.{name}" not in [one.name for one in found.table_rows]
    written = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert written["chosen"][name]["layers"] == [GOOD]


def test_what_is_chosen_from() -> None:
    backend = OnePlace()
    (entry,) = build_rows(
        backend, [{"method": "daam", "choose": "layer+head+step", "name": "place"}], {}, 2
    )
    # Three layers of two heads at two steps.
    assert len(entry.variants) == 12
    assert entry.name == "place"
    assert {one.options["steps"] for one in entry.variants} == {(2,), (6,)}
    every = candidates(backend, "daam", {"steps": None}, ("step",))
    assert [one["steps"] for one in every] == [(step,) for step in range(STEPS)]
    given = candidates(backend, "daam", {"steps": (1, 4)}, ("step",))
    assert given == [{"steps": (1,)}, {"steps": (4,)}]
    assert candidates(backend, "daam", {}, ("head",)) == [{"heads": (0,)}, {"heads": (1,)}]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"choose": "place"}, "choose must name some of layer, head, step, each once"),
        ({"choose": ["layer", "layer"]}, "each once"),
        ({"choose": []}, "each once"),
        ({"choose": 3}, "choose must be a list of layer, head, step, not 3"),
        ({"choose": "layer", "layers": ["up"]}, "layers is what layer is chosen for"),
        ({"method": "attention-chains", "choose": "layer"}, "it has no option layers; .* daam"),
    ],
)
def test_what_is_refused(method, message) -> None:
    with pytest.raises(ValueError, match=message):
        build_rows(ToyModel(), [{"method": "daam", **method}], {}, 2)
