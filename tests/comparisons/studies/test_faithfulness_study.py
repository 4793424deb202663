"""``wordlight study faithfulness``, on a linear model of images that the renderer draws."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.comparisons.fakes import CONTEXT, FakeBackend
from wordlight.attribution.maps import AttributionMaps
from wordlight.attribution.methods.controls import Random
from wordlight.attribution.methods.occlusion import Occlusion
from wordlight.comparisons import compare
from wordlight.comparisons.cli.main import main
from wordlight.comparisons.datasets.images.generated_scenes import GeneratedScenes
from wordlight.comparisons.runs.scoring import partner
from wordlight.comparisons.studies.faithfulness import (
    FaithfulnessOptions,
    center_width,
    rows_of,
    shuffled_words,
    study_faithfulness,
)

N = 6
OPTIONS = FaithfulnessOptions(steps=2, sets=6, perturbations=1)
METHODS = ["occlusion", "uniform", "random", "shuffled-word"]


class LinearScenes(FakeBackend):
    """Its prediction is a sum over tokens of random matrices times embeddings."""

    capabilities = frozenset({"denoise", "sample"})

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(0)
        self.jacobian = rng.normal(size=(4, 16, 16, CONTEXT, 4))

    def _draw(self, prompt, seed):
        drawn = super()._draw(prompt, seed)
        rng = np.random.default_rng(seed)
        return replace(drawn, embeddings=rng.normal(size=(CONTEXT, 4)))

    def _denoise(self, latents, timestep, conditioning):
        return latents + np.einsum("cyxtd,btd->bcyx", self.jacobian, conditioning.embeddings)


def study(backend, out, **changed):
    asked = {"methods": METHODS, "n": N, "options": OPTIONS, **changed}
    return study_faithfulness(backend, out=out, **asked)


@pytest.fixture(scope="module")
def backend():
    return LinearScenes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("faithfulness") / "out"


@pytest.fixture(scope="module")
def found(backend, folder):
    return study(backend, folder)


@pytest.fixture(scope="module")
def rows(found):
    return {row.method: row for row in found.rows}


def mean(row, metric):
    return row.estimates[metric].mean


def test_on_a_linear_model_occlusion_is_right_and_controls_are_not(rows):
    # Maps are kept in float32.
    assert mean(rows["occlusion"], "infidelity") < 1e-5
    assert mean(rows["occlusion"], "infidelity@best-scale") < 1e-5
    for control in ("uniform", "random", "shuffled-word.occlusion"):
        assert mean(rows[control], "infidelity@best-scale") > 0.3
        assert mean(rows["occlusion"], "deletion") < mean(rows[control], "deletion")
        assert mean(rows["occlusion"], "insertion") > mean(rows[control], "insertion")


def test_what_is_ranked_and_what_is_measured(found, rows):
    assert list(rows) == [
        "occlusion",
        "uniform",
        "random",
        "shuffled-word.occlusion",
        "regeneration",
    ]
    truth = rows["regeneration"]
    assert truth.reference
    assert mean(truth, "removal-rank") == mean(truth, "removal-iou") == 1
    assert set(truth.standings) == {"deletion", "insertion", "infidelity", "infidelity@best-scale"}
    assert truth.estimates["sensitivity"].n == 0
    assert mean(rows["uniform"], "sensitivity") == mean(rows["random"], "sensitivity") == 0
    assert 0 < mean(rows["occlusion"], "sensitivity") < 1
    for row in found.rows:
        assert row.control == (row.method not in ("occlusion", "regeneration"))
        assert row.estimates["infidelity"].n == N
        assert row.estimates["deletion"].n == found.words
    assert not any("regeneration" in (t.first, t.second) for t in found.tests["removal-iou"])
    assert len(found.tests["infidelity"]) == 10


def test_the_cost_is_the_methods_own(rows):
    assert mean(rows["uniform"], "forward-equivalents") == 0 or np.isnan(
        mean(rows["uniform"], "forward-equivalents")
    )
    assert mean(rows["shuffled-word.occlusion"], "forward-equivalents") == mean(
        rows["occlusion"], "forward-equivalents"
    )


def test_a_second_run_asks_nothing_and_a_missing_cell_is_made_again(backend, folder, found):
    before = backend.evaluations.forward, len(backend.drawn)
    assert study(backend, folder) == found
    assert (backend.evaluations.forward, len(backend.drawn)) == before
    (folder / "cells/fake/scenes-test-0002/occlusion.parquet").unlink()
    (folder / "cells/fake/scenes-test-0003/regeneration.parquet").unlink()
    again = study(backend, folder)
    assert again.rows == found.rows
    assert again.tests == found.tests


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"n": 5}, "n was 6, now 5"),
        ({"scheduler": "euler"}, "scheduler is asked for now and wasn't there"),
        ({"options": replace(OPTIONS, radius=0.1)}, "options.radius was 0.02, now 0.1"),
        ({"methods": ["uniform"]}, "methods.occlusion was there"),
        ({"groups": ["order", "removals"]}, "no metric 'removals'"),
        ({"options": replace(OPTIONS, radius=0.0)}, "radius must be above 0"),
        ({"options": replace(OPTIONS, sets=0)}, "sets must be 1 or more"),
        ({"methods": ["uniform", "uniform"]}, "named twice"),
        ({"methods": ["unifrom"]}, "did you mean uniform"),
    ],
)
def test_other_settings_and_bad_ones_are_refused(backend, folder, found, changed, says):
    with pytest.raises(ValueError, match=says):
        study(backend, folder, **changed)


def test_rows_are_known_before_a_model_is_loaded():
    assert rows_of(["daam", "center", "shuffled-word"], ["order"]) == [
        "daam", "center", "shuffled-word.daam",
    ]  # fmt: skip
    assert rows_of(["daam"], ["removal"]) == ["daam", "regeneration"]
    assert rows_of(["regeneration", "daam"], ["removal"]) == ["regeneration", "daam"]
    with pytest.raises(ValueError, match="nothing to judge"):
        rows_of([], ["order"])


def test_shuffled_words_have_another_objects_maps_or_the_next_words(backend, tmp_path):
    items = GeneratedScenes(backend, "test", N).items(tmp_path)
    item = next(item for item in items if sum(s.headline for s in item.words) == 2)
    maps = Random(backend).attribute(item.trajectory)
    shuffled = shuffled_words(maps, item)
    words = [index for index, player in enumerate(maps.players) if player.is_text]
    partners = {
        scored.word.tokens: partner(item, scored).word.tokens
        for scored in item.words
        if partner(item, scored) is not None
    }
    assert sum(scored.headline and scored.word.tokens in partners for scored in item.words) == 2
    for place, index in enumerate(words):
        tokens = maps.players[index].tokens
        after = words[(place + 1) % len(words)]
        wanted = next((k for k in words if maps.players[k].tokens == partners.get(tokens)), after)
        assert wanted != index
        assert np.array_equal(shuffled.data.values[index], maps.data.values[wanted])
    others = [index for index in range(len(maps)) if index not in words]
    assert np.array_equal(shuffled.data.values[others], maps.data.values[others])


def test_the_centres_width_is_the_one_that_a_comparison_chooses(backend, tmp_path):
    tuning = GeneratedScenes(backend, "calibration", 8)
    found = compare(
        backend, ["center"], out=tmp_path / "c", n=N, calibration=8, progress=False
    ).choices["center"]  # fmt: skip
    assert center_width(backend, tuning.items(tmp_path / "t")) == found.variant.options["width"]
    options = replace(OPTIONS, calibration=8)
    asked = {"methods": ["center", "uniform"], "groups": ["order"], "options": options}
    study_of = study(backend, tmp_path / "out", **asked)
    assert study_of.width == found.variant.options["width"]
    kept = AttributionMaps.load(tmp_path / "out/maps/fake/scenes-test-0000/center.safetensors")
    assert kept.provenance.settings["width"] == study_of.width
    assert study(backend, tmp_path / "out", **asked) == study_of
    with pytest.raises(ValueError, match=r"options\.calibration was 8, now 4"):
        study(backend, tmp_path / "out", **{**asked, "options": replace(options, calibration=4)})


def test_without_two_objects_no_width_can_be_chosen(backend):
    with pytest.raises(ValueError, match="no calibration image shows two"):
        center_width(backend, [])


def test_a_model_that_gives_too_little_is_said_so(tmp_path):
    from wordlight.backends.backend import MissingCapabilityError

    with pytest.raises(MissingCapabilityError, match="sample"):
        study(FakeBackend(), tmp_path / "out")
    assert Occlusion.needs == {"denoise"}


def test_the_command(backend, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("wordlight.backends.loading.load", lambda *a, **k: backend)
    line = [
        "study",
        "faithfulness",
        "--method",
        "occlusion",
        "--method",
        "uniform",
        "-n",
        "3",
        "--quiet",
    ]
    line += ["--steps", "1", "--sets", "4", "--metric", "infidelity", "--metric", "order"]
    assert main([*line, "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "out/faithfulness.txt").read_text() == printed
    assert "deletion, lower is better" in printed
    assert "removal" not in printed
    assert main([*line, "--json", "-o", str(tmp_path / "out")]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data == json.loads((tmp_path / "out/faithfulness.json").read_text())
    assert [row["method"] for row in data["rows"]] == ["occlusion", "uniform"]
    assert data["rows"][0]["metrics"]["infidelity"]["groups"] == "a"
    # Without a folder nothing is left, and the numbers are the same.
    assert main([*line, "--json"]) == 0
    elsewhere = json.loads(capsys.readouterr().out)
    for row in (*data["rows"], *elsewhere["rows"]):
        del row["metrics"]["seconds"]
    assert elsewhere == data


def test_a_bad_command_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("wordlight.backends.loading.load", lambda *a, **k: LinearScenes())
    assert main(["study", "faithfulness", "--radius", "-1", "--quiet", "-n", "1"]) == 2
    assert capsys.readouterr().err == "wordlight: error: radius must be above 0, not -1.0\n"
    assert main(["study", "faithfulness", "--method", "damm", "--quiet"]) == 2
    assert "did you mean daam" in capsys.readouterr().err
