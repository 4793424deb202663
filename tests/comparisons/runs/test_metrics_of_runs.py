"""Metrics of a run: several kinds at once, asked for later, of other packages."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.comparisons.fakes import CONTEXT, FakeBackend
from wordlight.attribution.maps import AttributionMaps
from wordlight.attribution.methods.occlusion import Occlusion
from wordlight.comparisons import compare
from wordlight.comparisons.cli.main import main
from wordlight.comparisons.metrics import registry
from wordlight.comparisons.metrics.dice import METRIC as DICE
from wordlight.comparisons.results.html import write_report
from wordlight.comparisons.store.settings_file import settings_hash

METHODS = ["occlusion", "center", "shuffled-word"]
N, CALIBRATION = 3, 4
BOTH = ["segmentation", "order", "removal", {"metric": "infidelity", "sets": 2}]


class Linear(FakeBackend):
    """A prediction that is linear in the embeddings, which differ from word to word."""

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


def run(backend, out, metrics=BOTH, methods=METHODS, **options):
    options = {"n": N, "calibration": CALIBRATION, "steps": 1, "progress": False, **options}
    return compare(backend, methods, out=out, metrics=metrics, **options)


@pytest.fixture(scope="module")
def backend():
    return Linear()


@pytest.fixture(scope="module")
def whole(backend, tmp_path_factory):
    return run(backend, tmp_path_factory.mktemp("whole"))


def values(found):
    """Every estimate, but for the seconds."""
    return {
        (row.method, row.metric): (row.estimate, row.standing)
        for row in found.results
        if row.metric != "seconds"
    }


def test_one_run_judges_both_kinds(whole):
    text = whole.text
    for head in ("mIoU@best [95 %]", "deletion, lower is better [95 %]", "Removal:", "Infidelity:"):
        assert head in text
    # The reference stands in tables of the model alone, and isn't ranked by its own truth.
    assert not whole.has("regeneration", "miou@best")
    assert whole.standing("regeneration", "removal-iou") is None
    assert whole.estimate("regeneration", "removal-iou").mean == 1
    # Of three images that are all right, a share of 0.29 can't be ruled out (0.025 ** (1 / 3)).
    assert "1.000 [0.292, 1.000] reference" in text
    first = text.split("Other metrics")[0]
    assert "regeneration" not in first
    page = write_report(whole.out).read_text("utf-8")
    assert "lower is better" in page
    assert "deletion" in page
    saved = json.loads((whole.out / "settings.json").read_text())["settings"]
    assert "metrics" not in saved
    assert "regeneration" not in saved["methods"]


def test_a_run_is_extended_by_metrics_and_computes_nothing_twice(whole, tmp_path, monkeypatch):
    backend = Linear()
    asked = []
    monkeypatch.setattr(
        Occlusion,
        "attribute",
        lambda self, *a, **k: asked.append(1) or super(Occlusion, self).attribute(*a, **k),
    )
    first = run(backend, tmp_path, ["segmentation"])
    drawn, made = len(backend.drawn), len(asked)
    cells = {p: pq.read_table(p).to_pylist() for p in (tmp_path / "cells").rglob("*.parquet")}
    again = run(backend, tmp_path)
    assert values(again) == values(whole)
    # Drawn was only what regeneration draws: each image again without each of its words.
    maps = [
        AttributionMaps.load(path) for path in (tmp_path / "maps").rglob("regeneration.safetensors")
    ]
    assert len(backend.drawn) - drawn == sum(len(one.words) for one in maps)
    assert len(asked) == made
    for path, scores in cells.items():
        there = pq.read_table(path).to_pylist()
        assert [score for score in scores if score not in there] == []
    # Asked for less, nothing is computed, and the table is the first one's.
    before = backend.evaluations.forward, len(backend.drawn)
    less = run(backend, tmp_path, ["segmentation"])
    assert (backend.evaluations.forward, len(backend.drawn)) == before
    assert less.text == first.text


def test_thresholds_are_chosen_when_they_are_first_needed(whole, tmp_path):
    backend = Linear()
    methods = ["occlusion", "shuffled-word"]
    run(backend, tmp_path, ["order"], methods)
    # Nothing is to be chosen: no calibration image is drawn.
    assert not list((tmp_path / "samples").glob("*calibration*"))
    order = {p: p.stat().st_mtime_ns for p in (tmp_path / "maps").rglob("*-test-*/*.safetensors")}
    extended = run(backend, tmp_path, ["segmentation", "order"], methods)
    found, wanted = values(extended), values(whole)
    for key in (("occlusion", "miou@0.4"), ("occlusion", "ap"), ("occlusion", "pointing-game")):
        assert found[key][0] == wanted[key][0]
    assert {path: path.stat().st_mtime_ns for path in order} == order


def test_single_metrics_by_name(backend, tmp_path):
    found = run(backend, tmp_path, ["dice", "boundary-f"], ["uniform", "occlusion"])
    header = next(line for line in found.text.splitlines() if line.startswith("method")).split("  ")
    assert [cell.strip() for cell in header if cell.strip()] == [
        "method", "Dice", "boundary F", "forward-eq.", "seconds", "completeness error %",
    ]  # fmt: skip
    assert "Dice: of the mask and the map" in " ".join(found.text.split())
    write_report(tmp_path)


def test_a_metric_of_another_package(backend, tmp_path, monkeypatch):
    theirs = replace(DICE, name="theirs", label="Theirs")
    known = registry.available()
    monkeypatch.setattr(registry, "available", lambda: {**known, "theirs": theirs})
    found = run(backend, tmp_path, ["segmentation", "theirs"], ["uniform"])
    assert "Theirs" in found.text
    assert found.ceiling["theirs"].mean > 0.8
    assert "Theirs" in write_report(tmp_path).read_text("utf-8")
    assert "theirs" in found.csv
    masks = found.estimate("uniform", "theirs")
    assert masks.n == found.facts.words


def test_a_metric_that_fails_loses_its_cells_and_not_the_others(backend, tmp_path):
    def broken(word):
        raise RuntimeError("broken metric")

    run(backend, tmp_path, ["ap"], ["uniform"])
    bad = replace(DICE, name="bad", score=broken, needs=frozenset({"masks"}), constant=None)
    found = run(backend, tmp_path, ["ap", bad], ["uniform"])
    assert {failure.message for failure in found.failures} == {"broken metric"}
    assert len(found.failures) == N
    assert found.estimate("uniform", "ap").n == found.facts.words
    assert found.estimate("uniform", "bad").n == 0


def test_a_run_of_an_earlier_release_says_how_to_keep_its_maps(backend, tmp_path):
    old = run(backend, tmp_path / "old", ["segmentation"], ["occlusion", "uniform"])
    path = tmp_path / "old/settings.json"
    saved = json.loads(path.read_text())
    del saved["checksum"]  # earlier releases wrote none
    saved["settings"]["metrics"] = ["ap"]
    saved["hash"] = settings_hash(saved["settings"])
    path.write_text(json.dumps(saved))
    with pytest.raises(ValueError, match=r"of an earlier release.*--maps NAME=.*old/maps/fake"):
        run(backend, tmp_path / "old", ["segmentation"], ["occlusion", "uniform"])
    # And it does what the message says.
    kept = {"occlusion": tmp_path / "old/maps/fake"}
    new = run(backend, tmp_path / "new", ["segmentation"], ["uniform"], maps=kept)
    for metric in ("miou@best", "ap", "forward-equivalents"):
        assert new.estimate("occlusion", metric) == old.estimate("occlusion", metric)


def test_the_command_line(backend, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("wordlight.backends.loading.load", lambda *a, **k: backend)
    line = ["compare", "--method", "uniform", "-n", "2", "--calibration", "4", "--steps", "1"]
    line += ["--quiet", "-o", str(tmp_path / "out")]
    assert main([*line, "--metrics", "dice,infidelity,sets=2"]) == 0
    assert "Dice" in capsys.readouterr().out
    assert "sets: 2" in (tmp_path / "out/run.yaml").read_text()
    config = tmp_path / "run.toml"
    config.write_text('metrics = ["ap", {metric = "infidelity", sets = 3}]\n')
    assert main([*line, "--config", str(config)]) == 0
    for wrong, says in (
        ("dise", "did you mean dice"),
        ("dice,sets=2", "dice has no option 'sets'"),
        ("sets=2", "metrics are NAME,NAME"),
    ):
        assert main([*line, "--metrics", wrong]) == 2
        assert says in capsys.readouterr().err
    assert main(["metrics"]) == 0
    assert "boundary-f" in capsys.readouterr().out
    assert main(["metrics", "--json"]) == 0
    facts = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert facts["deletion"]["higher_is_better"] is False
