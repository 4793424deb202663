"""Cells, settings and output folders on disk."""

from __future__ import annotations

import contextlib
import importlib
import json
from dataclasses import replace

import numpy as np
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
from wordlight.comparisons.store.json_file import read_json, write_json
from wordlight.comparisons.store.output_folder import (
    OutputFolderError,
    writable_folder,
    written_at_once,
)
from wordlight.comparisons.store.settings_file import (
    holds_same_run,
    restore_settings,
    settings_hash,
    write_settings,
)
from wordlight.comparisons.store.versions import source_digest

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
    assert there.missing_metrics({"ap": "1", "seconds": "1"}) == set()
    assert there.missing_metrics({"ap": "2", "dice": "1"}) == {"ap", "dice"}
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
        with pytest.raises(OutputFolderError, match="can't write into"), writable_folder(folder):
            pytest.fail("it was not noticed")


def fail_within(manager, folder):
    with manager(folder) as place:
        if manager is written_at_once:
            (place / "image.png").write_text("half")
        raise RuntimeError


@pytest.mark.parametrize("manager", [writable_folder, written_at_once])
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


def test_no_flipped_bit_gives_other_scores(tmp_path):
    folder = CellFolder(tmp_path, "torch", "the run")
    folder.write("scenes-test-0000", "daam", CELL)
    path = folder.cell_path("scenes-test-0000", "daam")
    whole = path.read_bytes()
    named = 0
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << (place % 8)
        path.write_bytes(data)
        try:
            assert folder.read("scenes-test-0000", "daam") == CELL, place
        except DamagedFileError:
            named += 1
    assert named > len(whole) / 3


def test_a_file_that_can_not_be_opened_is_not_damaged(tmp_path, monkeypatch):
    write_scores(tmp_path / "x.parquet", SCORES)

    def busy(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(pq, "ParquetFile", busy)
    with pytest.raises(OSError, match="Input/output error"):
        read_scores(tmp_path / "x.parquet")


def test_no_flipped_bit_of_json_gives_other_data(tmp_path):
    data = {"word": "circle", "share": 0.25, "spans": [[0, 6]]}
    path = tmp_path / "x.json"
    write_json(path, data)
    whole = path.read_bytes()
    assert read_json(path) == data
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        with contextlib.suppress(DamagedFileError):
            assert read_json(path) == data, place


def test_damaged_settings_are_written_anew_where_every_cell_names_them(tmp_path):
    settings = {"n": 2}
    write_settings(tmp_path, settings)
    own = CellFolder(tmp_path, "torch", settings_hash(settings))
    own.write("scenes-test-0000", "daam", CELL)
    (tmp_path / "settings.json").write_text("")
    restore_settings(tmp_path, {"n": 3})
    with pytest.raises(ValueError, match="is damaged"):
        holds_same_run(tmp_path, settings)
    restore_settings(tmp_path, settings)
    assert holds_same_run(tmp_path, settings)


_MINE = """
import {helper}
class Mine:
    def answer(self):
        return {helper}.add(1)
"""


def test_code_of_no_release_is_told_by_its_source(tmp_path, monkeypatch):
    """With what it imports that is of no release either."""
    monkeypatch.syspath_prepend(tmp_path)

    def digest(number, added):
        # Modules are read once a process: each under a name of its own, with the same code.
        (tmp_path / f"helper{number}.py").write_text(f"def add(n):\n    return n + {added}\n")
        (tmp_path / f"mine{number}.py").write_text(_MINE.format(helper=f"helper{number}"))
        found = source_digest([importlib.import_module(f"mine{number}").Mine])
        (tmp_path / f"helper{number}.py").write_text(f"def add(n):\n    return n + {added + 1}\n")
        return found, source_digest([importlib.import_module(f"mine{number}").Mine])

    before, after = digest(1, 1)
    assert before != after
    assert source_digest([dict, np.ndarray, CellFolder]) == ""
