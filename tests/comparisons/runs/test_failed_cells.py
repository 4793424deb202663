"""A method that fails on an image loses that cell, and not the run."""

from __future__ import annotations

import copy
from typing import ClassVar

import pytest

from tests.comparisons import dataset_files as files
from tests.comparisons.datasets.test_datasets_compared import Inverting
from tests.comparisons.fakes import FakeBackend, Planted
from wordlight.attribution import registry
from wordlight.attribution.methods.controls import Uniform
from wordlight.comparisons import compare
from wordlight.comparisons.cli.main import main
from wordlight.comparisons.datasets.images.generated_scenes import GeneratedScenes
from wordlight.comparisons.runner import RunWarning
from wordlight.comparisons.runs.listing import read_run
from wordlight.comparisons.store import failures
from wordlight.comparisons.store.cells import DamagedFileError

N, CALIBRATION = 4, 4


class Brittle(Planted):
    """Fails on some prompts, until it is mended."""

    name = "brittle"
    broken: ClassVar[frozenset[str]] = frozenset()

    def _attribute(self, question):
        if question.trajectory.prompt in self.broken:
            raise RuntimeError("too brittle\nfor this")
        return super()._attribute(question)


@pytest.fixture
def backend():
    return FakeBackend()


def prompts(backend, split, *indices):
    scenes = GeneratedScenes(backend, split, 8).scenes
    return frozenset(scenes[index].prompt for index in indices)


def run(backend, methods, out, **options):
    options = {"n": N, "calibration": CALIBRATION, "progress": False, **options}
    return compare(backend, methods, out=out, **options)


def without_seconds(found):
    return [row for row in found.to_json() if row["metric"] != "seconds"]


def test_it_is_recorded_and_the_next_start_tries_it_again(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(Brittle, "broken", prompts(backend, "test", 1, 2))
    methods = [Brittle(backend, steps=4), "uniform", "shuffled-word"]
    found = run(backend, methods, tmp_path / "out")
    rows = {(f.sample, f.method, f.error, f.message) for f in found.failures}
    assert rows == {
        (f"scenes-test-000{k}", name, "RuntimeError", "too brittle for this")
        for k in (1, 2)
        for name in ("brittle", "shuffled-word.brittle")
    }
    assert "4 cells failed" in found.text
    assert "brittle 2" in found.text
    assert "or failed cells)" in " ".join(found.text.split())
    # The method's own map wasn't asked for again for its shuffled words.
    (record, *_) = failures.recorded(tmp_path / "out")
    assert "_attribute" in record.trace
    whole, left = found.estimate("uniform", "seconds").n, found.estimate("brittle", "seconds").n
    assert (whole, left) == (N, N - 2)
    assert read_run(tmp_path / "out").state == "failed cells"

    monkeypatch.setattr(Brittle, "broken", frozenset())
    again = run(backend, methods, tmp_path / "out")
    assert again.failures == ()
    assert not list((tmp_path / "out" / "failed").rglob("*.json"))
    assert read_run(tmp_path / "out").state == "finished"
    assert without_seconds(again) == without_seconds(run(backend, methods, tmp_path / "other"))


def test_another_choice_judges_the_test_images_again(backend, tmp_path, monkeypatch):
    methods = [Brittle(backend, steps=4), "uniform", "shuffled-word"]
    whole = run(backend, methods, tmp_path / "whole")
    monkeypatch.setattr(Brittle, "broken", prompts(backend, "calibration", 0))
    first = run(backend, methods, tmp_path / "out")
    assert first.choices["brittle"].threshold != whole.choices["brittle"].threshold
    cells = tmp_path / "out/cells/fake/scenes-test-0001"
    control = (cells / "uniform.parquet").stat().st_mtime_ns

    # One that fails at the new choice doesn't keep what it scored at the old one.
    (tmp_path / "out/maps/fake/scenes-test-0001/brittle.safetensors").unlink()
    monkeypatch.setattr(Brittle, "broken", prompts(backend, "test", 1))
    mended = run(backend, methods, tmp_path / "out")
    assert mended.estimate("brittle", "seconds").n == N - 1

    monkeypatch.setattr(Brittle, "broken", frozenset())
    again = run(backend, methods, tmp_path / "out")
    assert without_seconds(again) == without_seconds(whole)
    # What was chosen anew alike stays, and so does everything the next time.
    assert (cells / "uniform.parquet").stat().st_mtime_ns == control
    made = {path: path.stat().st_mtime_ns for path in cells.iterdir()}
    run(backend, methods, tmp_path / "out")
    assert made == {path: path.stat().st_mtime_ns for path in cells.iterdir()}


def test_a_row_of_which_nothing_is_left_is_not_in_the_table(backend, tmp_path, monkeypatch):
    monkeypatch.setattr(Brittle, "broken", prompts(backend, "calibration", *range(CALIBRATION)))
    found = run(backend, [Brittle(backend, steps=4), "uniform"], tmp_path / "out")
    assert [entry.name for entry in found.table_rows] == ["uniform"]
    assert found.lost == ("brittle",)
    text = " ".join(found.text.split())
    assert "nothing was left of brittle" in text
    assert "brittle: not measured: no word is left to choose its threshold on" in text
    assert f"{CALIBRATION} calibration cells failed" in text
    with pytest.raises(ValueError, match=r"every cell .* failed; the first: brittle of scenes-cal"):
        run(backend, [Brittle(backend, steps=4)], tmp_path / "alone")


def test_a_row_that_fails_wherever_there_is_a_headline_word_is_lost_alone(
    backend, tmp_path, monkeypatch
):
    scenes = GeneratedScenes(backend, "calibration", CALIBRATION).scenes
    several = frozenset(scene.prompt for scene in scenes if len(scene.groups) > 1)
    assert 0 < len(several) < CALIBRATION
    monkeypatch.setattr(Brittle, "broken", several)
    methods = [Brittle(backend, steps=4), "uniform"]
    found = run(backend, methods, tmp_path / "out")
    assert [entry.name for entry in found.table_rows] == ["uniform"]
    assert found.lost == ("brittle",)
    ((name, why),) = found.facts.not_measured
    assert name == "brittle"
    assert f"{len(several)} calibration cells failed" in why
    # Its cells without a headline word are kept for when it is mended.
    monkeypatch.setattr(Brittle, "broken", frozenset())
    again = run(backend, methods, tmp_path / "out")
    assert again.lost == again.facts.not_measured == ()
    assert without_seconds(again) == without_seconds(run(backend, methods, tmp_path / "other"))


class Flat(Uniform):
    """No control, so that another word's map can be taken."""

    name = "flat"
    family = "perturbation"


def test_where_images_show_one_object_another_words_map_is_not_measured(tmp_path):
    path = files.imagenet_segmentation(tmp_path / "segs.mat", ["n02084071_1"] * 2 + ["n02121808_1"])
    spec = f"{path},names={path.with_name('names.txt')}"
    backend = Inverting()
    methods = [Flat(backend), "uniform", "shuffled-word"]
    found = run(backend, methods, tmp_path / "out", data=spec, n=1, calibration=1)
    assert [entry.name for entry in found.table_rows] == ["flat", "uniform"]
    assert found.lost == ("shuffled-word.flat",)
    text = " ".join(found.text.split())
    assert "shuffled-word (flat): not measured: no word to choose its threshold on" in text
    assert found.failures == ()
    assert read_run(tmp_path / "out").state == "finished"


def test_the_exit_status_says_so(backend, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("wordlight.backends.loading.load", lambda *_, **__: backend)
    monkeypatch.setattr(registry, "available", lambda: {"brittle": Brittle, "uniform": Uniform})
    monkeypatch.setattr(Brittle, "broken", prompts(backend, "test", 1))
    command = ["compare", "-n", "3", "--calibration", "4", "--quiet", "--out", str(tmp_path)]
    command += ["--method", "brittle", "--method", "uniform"]
    assert main(command) == 1
    told = capsys.readouterr()
    assert "1 cell failed" in told.out
    assert told.err.startswith("wordlight: 1 cell failed, the first: brittle of scenes-test-0001")
    monkeypatch.setattr(Brittle, "broken", frozenset())
    assert main(command) == 0


@pytest.mark.parametrize(
    "path",
    [
        "cells/fake/scenes-test-0002/uniform.parquet",
        "cells/fake/scenes-calibration-0001/uniform.parquet",
        "samples/scenes-test-0001.safetensors",
        "samples/scenes-calibration-0001.safetensors",
        "words/scenes-test-0002.json",
        # Read by the picture alone where the cell is whole.
        "maps/fake/scenes-test-0001/uniform.safetensors",
    ],
)
def test_a_damaged_file_stops_the_run_or_is_made_again(backend, tmp_path, path):
    first = run(backend, ["uniform"], tmp_path)
    whole = (tmp_path / path).read_bytes()
    (tmp_path / path).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"{path.rsplit('/')[-1]} is damaged"):
        run(backend, ["uniform"], tmp_path)
    with pytest.warns(RunWarning, match=f"1 damaged files .* made again: {path}"):
        again = run(backend, ["uniform"], tmp_path, damaged="recompute")
    assert without_seconds(again) == without_seconds(first)
    assert run(backend, ["uniform"], tmp_path).damaged == ()


def test_another_image_s_file_stops_a_begun_run_and_costs_it_nothing(backend, tmp_path):
    first = run(backend, ["uniform"], tmp_path)
    image, other = (tmp_path / f"samples/scenes-test-000{k}.safetensors" for k in (1, 2))
    own = image.read_bytes()
    image.write_bytes(other.read_bytes())
    with pytest.raises(ValueError, match="sample scenes-test-0002, not scenes-test-0001"):
        run(backend, ["uniform"], tmp_path)
    image.write_bytes(own)
    assert without_seconds(run(backend, ["uniform"], tmp_path)) == without_seconds(first)


def test_images_and_maps_of_another_run_are_refused(backend, tmp_path):
    """Of another seed, with the same prompts and names: nothing but the run tells them apart."""
    first = run(backend, ["uniform"], tmp_path / "one")
    run(backend, ["uniform"], tmp_path / "two", seed=1)
    for place in ("samples/scenes-test-0001", "maps/fake/scenes-test-0001/uniform"):
        own = tmp_path / f"one/{place}.safetensors"
        kept = own.read_bytes()
        own.write_bytes((tmp_path / f"two/{place}.safetensors").read_bytes())
        (tmp_path / "one/cells/fake/scenes-test-0001/uniform.parquet").unlink(missing_ok=True)
        with pytest.raises(ValueError, match="was made for something else"):
            run(backend, ["uniform"], tmp_path / "one")
        own.write_bytes(kept)
    assert without_seconds(run(backend, ["uniform"], tmp_path / "one")) == without_seconds(first)


def test_the_error_of_a_damaged_file_passes_between_processes(tmp_path):
    # A copy takes the error apart and makes it anew as sending it does (``__reduce_ex__``).
    error = copy.deepcopy(DamagedFileError(tmp_path / "cell", "it is damaged"))
    assert error.path == tmp_path / "cell"
    assert str(error) == "it is damaged; delete it, and it is computed again"


def test_damaged_maps_are_made_again(backend, tmp_path):
    methods = [Planted(backend, steps=4), "uniform"]
    first = run(backend, methods, tmp_path)
    maps = tmp_path / "maps/fake/scenes-test-0001/planted.safetensors"
    maps.write_bytes(maps.read_bytes()[:50])
    (tmp_path / "cells/fake/scenes-test-0001/planted.parquet").unlink()
    with pytest.warns(RunWarning, match="planted.safetensors"):
        again = run(backend, methods, tmp_path, damaged="recompute")
    assert without_seconds(again) == without_seconds(first)


def test_a_cell_of_another_run_is_refused(backend, tmp_path):
    for seed in (0, 1):
        run(backend, ["uniform"], tmp_path / str(seed), seed=seed)
    path = "cells/fake/scenes-test-0001/uniform.parquet"
    (tmp_path / "0" / path).replace(tmp_path / "1" / path)
    with pytest.raises(ValueError, match="is of a run with other settings"):
        run(backend, ["uniform"], tmp_path / "1", seed=1)
