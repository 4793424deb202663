"""Cells, settings and output folders on disk."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wordlight.comparisons.runs.scoring import still_holds
from wordlight.comparisons.store.cells import (
    Cell,
    CellFolder,
    DamagedFileError,
    Score,
    check_name,
    read_scores,
    write_scores,
)
from wordlight.comparisons.store.output_folder import OutputFolderError, claimed, written_at_once
from wordlight.comparisons.store.settings_file import holds_same_run, write_settings

SCORES = [
    Score("torch", "scenes-test-0000", "daam", "circle", 0, "ap", 0.25),
    Score("torch", "scenes-test-0000", "daam", "", -1, "seconds", 1.5),
]

CELL = Cell(tuple(SCORES), metrics={"ap": "1", "seconds": "1"})


@pytest.fixture
def folder(tmp_path):
    return CellFolder(tmp_path, "torch")


def test_a_cell_comes_back_as_it_was(folder):
    assert folder.read("scenes-test-0000", "daam") is None
    folder.write("scenes-test-0000", "daam", CELL)
    assert folder.read("scenes-test-0000", "daam") == CELL
    path = folder.root / "cells" / "torch" / "scenes-test-0000" / "daam.parquet"
    assert pq.read_table(path).schema.names == [
        "framework",
        "sample",
        "method",
        "word",
        "occurrence",
        "metric",
        "value",
    ]
    assert [p.name for p in path.parent.iterdir()] == ["daam.parquet"]


def test_a_cell_says_what_it_lacks(folder):
    folder.write("scenes-test-0000", "daam", CELL)
    there = folder.read("scenes-test-0000", "daam")
    assert there.lacking({"ap": "1", "seconds": "1"}) == set()
    assert there.lacking({"ap": "2", "dice": "1"}) == {"ap", "dice"}
    assert there.of({"ap": "1"}) == SCORES[:1]
    # Scores of a metric of other options aren't its scores.
    assert there.of({"ap": "2", "seconds": "1"}) == SCORES[1:]


def test_what_was_judged_at_another_choice_does_not_hold():
    at = replace(CELL, choice=("daam", 0.4, 0.1))
    assert still_holds(at, ("daam", 0.4, 0.1))
    assert still_holds(at, ("daam",))
    assert still_holds(replace(CELL, choice=("daam",)), ("daam", 0.4, 0.1))
    assert not still_holds(at, ("daam", 0.5, 0.1))
    assert not still_holds(at, ("center.width-0.2",))


def test_a_cell_without_scores_is_a_finished_cell(folder):
    folder.write("scenes-test-0000", "daam", Cell(()))
    assert folder.read("scenes-test-0000", "daam") == Cell(())


def test_scores_of_another_cell_are_refused(folder):
    with pytest.raises(ValueError, match="must all be of"):
        folder.write("scenes-test-0001", "daam", CELL)
    folder.write("scenes-test-0000", "daam", CELL)
    path = folder.cell_path("scenes-test-0000", "daam")
    path.rename(path.with_name("occlusion.parquet"))
    with pytest.raises(ValueError, match="another cell"):
        folder.read("scenes-test-0000", "occlusion")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_cell_is_refused_by_name(folder, share):
    folder.write("scenes-test-0000", "daam", CELL)
    path = folder.cell_path("scenes-test-0000", "daam")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"daam\.parquet is damaged or truncated"):
        folder.read("scenes-test-0000", "daam")


def test_a_cell_whose_texts_are_no_texts_is_refused_by_name(folder):
    folder.write("scenes-test-0000", "daam", CELL)
    path = folder.cell_path("scenes-test-0000", "daam")
    table = pq.read_table(path)
    words = pa.array([b"\xff\xfe", b""], pa.binary()).view(pa.string())
    pq.write_table(table.set_column(3, "word", words), path)
    with pytest.raises(DamagedFileError, match=r"daam\.parquet is damaged"):
        folder.read("scenes-test-0000", "daam")


def test_scores_of_one_metric_are_read_alone(tmp_path):
    path = tmp_path / "seed=1" / "x.parquet"
    write_scores(path, SCORES)
    assert read_scores(path, metric="ap") == SCORES[:1]
    assert read_scores(path, metric="auroc") == []
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged or truncated"):
        read_scores(path, metric="ap")


@pytest.mark.parametrize("metric", [None, "ap"])
def test_a_table_of_other_columns_is_refused(tmp_path, metric):
    pq.write_table(pa.table({"framework": ["torch"], "metric": ["ap"]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="not those of a cell"):
        read_scores(tmp_path / "x.parquet", metric=metric)


@pytest.mark.parametrize("name", ["", "../daam", "a/b", ".hidden", "a b", "x" * 101, "a\n"])
def test_names_that_would_be_other_files(name):
    with pytest.raises(ValueError, match="can't name a method"):
        check_name(name)


def test_settings_that_differ_are_named(tmp_path):
    settings = {"n": 32, "methods": {"daam": {"steps": 4, "layers": None}}}
    assert not holds_same_run(tmp_path, settings)
    write_settings(tmp_path, settings)
    assert holds_same_run(tmp_path, settings)
    # Tuples are lists in the file, and the same.
    write_settings(tmp_path, {"steps": (1, 2)})
    assert holds_same_run(tmp_path, {"steps": (1, 2)})
    write_settings(tmp_path, settings)
    with pytest.raises(ValueError, match=r"n was 32, now 8; seed is asked for now"):
        holds_same_run(tmp_path, {**settings, "n": 8, "seed": 0})
    with pytest.raises(ValueError, match=r"methods\.daam\.steps was 4, now 2"):
        holds_same_run(tmp_path, {"n": 32, "methods": {"daam": {"steps": 2, "layers": None}}})


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", json.dumps({"hash": "x", "settings": {}})])
def test_damaged_settings_are_refused(tmp_path, text):
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(ValueError, match=r"settings\.json"):
        holds_same_run(tmp_path, {})


def test_a_folder_below_a_file_can_not_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with pytest.raises(OutputFolderError, match="can't write into"), claimed(folder):
            pytest.fail("it was not noticed")


def fail_within(manager, folder):
    with manager(folder) as place:
        if manager is written_at_once:
            (place / "image.png").write_text("half")
        raise RuntimeError


@pytest.mark.parametrize("manager", [claimed, written_at_once])
def test_what_fails_leaves_nothing(tmp_path, manager):
    with pytest.raises(RuntimeError):
        fail_within(manager, tmp_path / "new" / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_stays(tmp_path):
    (tmp_path / "old").write_text("old")
    (tmp_path / "image.png").write_text("old")
    with pytest.raises(RuntimeError):
        fail_within(written_at_once, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image.png", "old"]
    assert (tmp_path / "image.png").read_text() == "old"
    with written_at_once(tmp_path) as place:
        (place / "image.png").write_text("new")
    assert (tmp_path / "image.png").read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image.png", "old"]
