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
from wordlight.comparisons.metrics.judged import partner, shuffled_words
from wordlight.comparisons.store.lock import locked
from wordlight.comparisons.studies.faithfulness import (
    Faithfulness,
)

N = 6
OPTIONS = {"steps": 2, "sets": 6, "perturbations": 1}
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
    asked = {"methods": METHODS, "n": N, **OPTIONS, "progress": False, **changed}
    return Faithfulness(backend, out=out, **asked).run()


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
    return {row["method"]: row for row in found.to_json()["rows"]}


def mean(row, metric):
    return row["metrics"][metric]["mean"]


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
    assert truth["reference"]
    assert mean(truth, "removal-rank") == mean(truth, "removal-iou") == 1
    ranked = {name for name, of in truth["metrics"].items() if "rank" in of}
    assert ranked == {"deletion", "insertion", "infidelity", "infidelity@best-scale"}
    assert truth["metrics"]["sensitivity"]["n"] == 0
    assert mean(rows["uniform"], "sensitivity") == mean(rows["random"], "sensitivity") == 0
    assert 0 < mean(rows["occlusion"], "sensitivity") < 1
    for name, row in rows.items():
        assert row["control"] == (name not in ("occlusion", "regeneration"))
        assert row["metrics"]["infidelity"]["n"] == N
        assert row["metrics"]["deletion"]["n"] == found.comparison.facts.words
    tests = found.comparison.tests
    assert not any("regeneration" in (t.first, t.second) for t in tests["removal-iou"])
    assert len(tests["infidelity"]) == 10


def test_the_cost_is_the_methods_own(rows):
    assert not mean(rows["uniform"], "forward-equivalents")
    assert mean(rows["shuffled-word.occlusion"], "forward-equivalents") == mean(
        rows["occlusion"], "forward-equivalents"
    )


def test_a_second_run_asks_nothing_and_a_missing_cell_is_made_again(backend, folder, found):
    before = backend.evaluations.forward, len(backend.drawn)
    assert study(backend, folder).text == found.text
    assert (backend.evaluations.forward, len(backend.drawn)) == before
    (folder / "cells/fake/scenes-test-0002/occlusion.parquet").unlink()
    (folder / "cells/fake/scenes-test-0003/regeneration.parquet").unlink()
    again = study(backend, folder).to_json()
    assert again == found.to_json()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"n": 5}, "n was 6, now 5"),
        ({"methods": ["uniform"]}, "methods.occlusion was there"),
        ({"groups": ["order", "removals"]}, "no metric 'removals'"),
        ({"groups": []}, "nothing to measure"),
        ({"methods": ["uniform", "uniform"]}, "two rows would be called 'uniform'"),
        ({"methods": ["unifrom"]}, "did you mean uniform"),
        ({"methods": []}, "nothing to compare"),
    ],
)
def test_other_settings_and_bad_ones_are_refused(backend, folder, found, changed, says):
    with pytest.raises(ValueError, match=says):
        study(backend, folder, **changed)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"radius": 0.0}, "radius must be above 0"),
        ({"sets": 0}, "sets must be a whole number, 1 or more"),
    ],
)
def test_options_that_cannot_be(changed, says):
    with pytest.raises(ValueError, match=says):
        Faithfulness(**changed)


def test_a_metric_of_other_options_is_measured_anew_and_the_others_stay(backend, tmp_path):
    asked = {"methods": ["occlusion", "uniform"], "n": 2, "groups": ["infidelity", "sensitivity"]}
    first = study(backend, tmp_path, **asked).to_json()
    before = backend.evaluations.forward
    other = study(backend, tmp_path, sets=2, **asked).to_json()
    assert backend.evaluations.forward > before
    for one, two in zip(first["rows"], other["rows"], strict=True):
        assert one["metrics"]["sensitivity"] == two["metrics"]["sensitivity"]
    assert first["rows"][1]["metrics"]["infidelity"] != other["rows"][1]["metrics"]["infidelity"]


def test_methods_may_have_options_and_one_that_fails_ends_nothing(backend, tmp_path):
    methods = [{"method": "shapley", "n_samples": 2}, {"method": "daam"}]
    found = study(backend, tmp_path, methods=methods[:1], n=2, groups=["order"])
    assert [entry.name for entry in found.comparison.table_rows] == ["shapley"]

    class Broken(Occlusion):
        name = "broken"

        def _attribute(self, question):
            raise RuntimeError("broken")

    methods = ["uniform", Broken(backend, steps=2)]
    found = study(backend, tmp_path / "other", methods=methods, n=2, groups=["order"])
    assert len(found.comparison.failures) == 2
    assert "2 cells failed" in found.text


def test_two_at_once_in_a_folder_are_one_too_many(backend, tmp_path):
    with locked(tmp_path), pytest.raises(ValueError, match="is in use by process"):
        study(backend, tmp_path, n=2, groups=["order"])


def test_shuffled_words_have_another_objects_maps_or_the_next_words(backend, tmp_path):
    items = list(GeneratedScenes(backend, "test", N).stream(tmp_path))
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
    found = compare(
        backend, ["center"], out=tmp_path / "c", n=N, calibration=8, progress=False
    ).choices["center"]  # fmt: skip
    asked = {"methods": ["center", "uniform"], "groups": ["order"], "calibration": 8}
    study_of = study(backend, tmp_path / "out", **asked)
    assert study_of.width == found.variant.options["width"]
    cell = found.variant.cell
    kept = AttributionMaps.load(tmp_path / f"out/maps/fake/scenes-test-0000/{cell}.safetensors")
    assert kept.provenance.settings["width"] == study_of.width
    assert study(backend, tmp_path / "out", **asked).text == study_of.text
    with pytest.raises(ValueError, match=r"calibration was 8, now 4"):
        study(backend, tmp_path / "out", **{**asked, "calibration": 4})


def test_without_two_objects_no_width_can_be_chosen(tmp_path):
    blank = LinearScenes()
    blank.blank = True
    with pytest.raises(ValueError, match="no word to choose"):
        study(blank, tmp_path, methods=["center"], n=2, groups=["infidelity"])


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
