"""What fills docs/leaderboard.md, docs/findings.md and docs/studies.md, on runs that are known."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from tests.comparisons.fakes import Complement, FakeBackend, Planted
from wordlight.comparisons import compare
from wordlight.comparisons.results.finished_run import FinishedRun

# They make pages of docs/, which no user runs; the quick suite tests the runs that they read.
pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[3] / "docs"
CONTROLS = ["uniform", "random", "shuffled-word"]


class Elsewhere(FakeBackend):
    framework = "elsewhere"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    one, other = FakeBackend(), Elsewhere()
    asked: dict[str, Any] = {"n": 16, "calibration": 4, "progress": False}
    methods = [Planted(one, steps=4), Complement(one, steps=4), Planted(one), *CONTROLS]
    compare(one, methods, out=folder / "many", **asked)
    further = [Complement(one, steps=4), "uniform"]
    compare(one, further, out=folder / "further", **asked)
    both = [Planted(one, steps=4), Planted(other, steps=4), "uniform", "shuffled-word"]
    compare([one, other], both, out=folder / "both", pairs="all", **{**asked, "n": 7})
    compare(one, ["uniform", "center"], out=folder / "fewer", **{**asked, "n": 7})
    return {name: folder / name for name in ("many", "further", "both", "fewer")}


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    for name in ("demo.md", "leaderboard.md", "findings.md", "studies.md"):
        shutil.copy(DOCS / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, docs: Path) -> Any:
    """Runs a maker with arguments, on copies of the pages."""
    monkeypatch.syspath_prepend(DOCS)

    def run(maker: str, *arguments: object) -> None:
        where = "--page" if maker == "make_studies" else "--docs"
        place = docs / "studies.md" if maker == "make_studies" else docs
        monkeypatch.setattr(sys, "argv", [maker, *map(str, arguments), where, str(place)])
        importlib.import_module(maker).main()

    return run


def between(page: Path, name: str) -> str:
    _, _, rest = page.read_text("utf-8").partition(f"<!-- {name} -->\n")
    return rest.partition(f"<!-- /{name} -->")[0]


def cells(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_demos_page_has_the_runs_table_and_picture(runs: Any, docs: Path, made: Any) -> None:
    (docs / "images").mkdir()
    made("make_demo", runs["many"])
    assert between(docs / "demo.md", "table") == (runs["many"] / "table.md").read_text("utf-8")
    picture = docs / "images" / "grid.png"
    assert picture.read_bytes() == (runs["many"] / "grid.png").read_bytes()


def test_the_leaderboard_has_the_runs_numbers(runs: Any, docs: Path, made: Any) -> None:
    made("make_leaderboard", runs["many"], runs["further"], runs["many"])
    page = docs / "leaderboard.md"
    header, _, *rows = cells(between(page, "many"))
    run = FinishedRun.read(runs["many"])
    shown = [row for row in run.rows if not row.shuffled]
    assert len(rows) == len(shown) == 5
    for line, row in zip(rows, shown, strict=True):
        found = dict(zip(header, line, strict=True))
        assert f"`{row.label}`" in found["method"]
        assert found["mIoU@best [95 %]"].startswith(f"{row.best.mean:.3f} [")
        assert found["against the best"] == (row.standing or "-")
        assert (found["of another object's word"] == "-") == (row.family == "control" or row.extra)
    header, _, *rows = cells(between(page, "kinds-many"))
    assert header[:2] == ["method", f"shape nouns ({run.n_words('headline')})"]
    assert any(name.startswith("colour words (") for name in header)
    for line, row in zip(rows, shown, strict=True):
        assert line[1].startswith(f"{row.best.mean:.3f} [")
    assert "16 test images" in between(page, f"about-{'many'}")
    assert all(note in between(page, "notes-many") for note in run.summary["notes"])
    # Of a further comparison only what the first hasn't, and without a rank of its own.
    _, _, *every = cells(between(page, "all"))
    names = [line[0] for line in every]
    assert [n.count("`planted`") for n in names].count(1) == 1
    assert every[next(i for i, n in enumerate(names) if "`planted`" in n)][3] == "-"
    assert len(set(names)) == len(names)
    with Image.open(docs / "images" / "leaderboard.png") as picture:
        assert picture.width > 600


def test_comparisons_of_other_images_are_not_mixed(
    runs: Any, made: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        made("make_leaderboard", runs["many"], runs["further"], runs["fewer"])
    assert "its n is 7, not 16" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        made("make_leaderboard", runs["many"], runs["many"].parent)
    assert "holds no finished run" in capsys.readouterr().err


def places(page: Path, *names: str) -> None:
    """Adds empty places to a page."""
    text = page.read_text("utf-8") + "".join(f"<!-- {n} -->\n<!-- /{n} -->\n" for n in names)
    page.write_text(text, encoding="utf-8")


def test_other_models_stand_beside_the_first(runs: Any, docs: Path, made: Any) -> None:
    page = docs / "leaderboard.md"
    page.write_text("", encoding="utf-8")
    places(
        page, "kinds-many", *(f"{a}{b}" for a in ("about-", "", "notes-") for b in ("many", "all"))
    )
    places(page, "renderer", "kinds-renderer", "vocabulary-renderer", "notes-renderer", "across")
    places(page, "renderer-costly", "notes-renderer-costly")
    compared = (runs["many"], runs["further"], "--models", runs["many"])
    made("make_leaderboard", *compared, "--costly", runs["fewer"])
    header, _, *rows = cells(between(page, "across"))
    assert header == ["method", "`renderer`", "`renderer`", "beats all its controls on"]
    by_name = {line[0].partition("]")[0].strip("[`"): line[1:] for line in rows}
    assert set(by_name) == {"planted", "complement", "uniform", "random", "center"}
    run = FinishedRun.read(runs["many"])
    best = next(row.best for row in run.rows if row.name == "planted")
    assert by_name["planted"][0] == by_name["planted"][1]
    assert by_name["planted"][0].startswith(f"{best.mean:.3f} [")
    assert by_name["planted"][2] == "renderer, renderer"
    assert by_name["complement"][2] == "none of them"
    assert by_name["uniform"][2] == "-"
    # What the comparison lacks is of the costly one, which says of how many images.
    few = next(row.best for row in FinishedRun.read(runs["fewer"]).rows if row.name == "center")
    assert by_name["center"][0].startswith(f"{few.mean:.3f} [")
    assert by_name["center"][0].endswith(" (7 images)")
    assert not by_name["uniform"][0].endswith("images)")
    assert between(page, "renderer-costly").startswith("`renderer`: 7 test images, ")
    assert between(page, "renderer").startswith("`renderer`: 16 test images, ")


def test_the_closed_vocabulary_is_of_words_that_name_a_class(runs: Any, made: Any) -> None:
    tables = importlib.import_module("leaderboard_tables")
    run = FinishedRun.read(runs["many"])
    names = {"circle": "dog", "circles": "dogs"}
    words = pa.array([names.get(word, "wolf") for word in run.scores["word"].to_pylist()])
    run = replace(
        run, scores=run.scores.set_column(run.scores.schema.get_field_index("word"), "word", words)
    )
    own = [
        one
        for one in run.scores.to_pylist()
        if one["method"] == "uniform" and one["kind"] in ("headline", "one-object")
    ]
    dogs = [one["value"] for one in own if one["word"].startswith("dog")]
    assert 0 < len(dogs) < len(own)
    header, _, *rows = cells(tables.by_vocabulary(run))
    assert header[1:] == [f"COCO's classes ({len(dogs)})", f"all nouns ({len(own)})"]
    (line,) = [row for row in rows if "`uniform`" in row[0]]
    every = [one["value"] for one in own]
    assert line[1].startswith(f"{sum(dogs) / len(dogs):.3f} [")
    assert line[2].startswith(f"{sum(every) / len(every):.3f} [")


def study(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    (folder / name / f"{name}.txt").write_text(f"the table of {name}\n")
    (folder / name / f"{name}.json").write_text(json.dumps({}))
    Image.new("RGB", (4, 4)).save(folder / name / f"{name}.png")
    return folder / name


def test_findings_say_which_controls_are_beaten(
    runs: Any, docs: Path, made: Any, tmp_path: Path
) -> None:
    layers, positions = study(tmp_path, "layers"), study(tmp_path, "positions")
    asked = "data: rendered-things,test=look-alikes\n"
    (runs["fewer"] / "run.yaml").write_text(asked, encoding="utf-8")
    made(
        "make_findings", runs["many"], "--layers", layers, "--positions", positions,
        "--frameworks", runs["both"], "--pictures", runs["many"], runs["fewer"],
    )  # fmt: skip
    page = docs / "findings.md"
    header, _, *rows, words = cells(between(page, "pictures"))
    assert header == ["method", "`renderer`, test", "`renderer`, look-alikes"]
    by_name = {line[0].partition("]")[0].strip("[`"): line[1:] for line in rows}
    run = FinishedRun.read(runs["many"])
    best = {row.name: row.best for row in run.rows}
    assert by_name["planted"][0].startswith(f"{best['planted'].mean:.3f} [")
    assert by_name["planted"][0].endswith(f"; {best['shuffled-word.planted'].mean:.3f}")
    assert by_name["planted"][1] == "-"
    assert by_name["uniform"][1].endswith("]")
    assert words[1] == str(best["planted"].n)
    _, _, *rows = cells(between(page, "controls"))
    by_name = {line[0].partition("]")[0].strip("[`"): line for line in rows}
    assert set(by_name) == {"planted", "complement"}
    assert by_name["planted"][4] == "none"
    assert set(by_name["complement"][4].split(", ")) >= {"uniform", "shuffled-word (complement)"}
    tests = json.loads((runs["many"] / "summary.json").read_text())["tests"]["miou@best"]
    pair = {"planted", "shuffled-word.planted"}
    (test,) = [t for t in tests if {t["first"], t["second"]} == pair]
    assert by_name["planted"][3].startswith(f"{abs(test['difference']):+.3f} (p")
    assert between(page, "layers") == "```\nthe table of layers\n```\n"
    assert between(page, "positions") == "```\nthe table of positions\n```\n"
    assert (docs / "images" / "findings-layers.png").is_file()
    _, _, *frameworks = cells(between(page, "frameworks"))
    assert {line[0] for line in frameworks} == {
        "planted", "uniform", "shuffled-word of planted",
    }  # fmt: skip
    for line in frameworks:
        assert line[1] == line[2]
        assert line[3] == "+0.000 (p = 1.000)"


def test_a_page_without_a_place_is_named(
    runs: Any, docs: Path, made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--layers", study(tmp_path, "layers"), "--positions", study(tmp_path, "positions")]
    with pytest.raises(SystemExit):
        made(
            "make_findings", runs["many"], *asked, "--frameworks", runs["both"],
            "--models", runs["further"],
        )  # fmt: skip
    assert "findings.md has no place for renderer" in capsys.readouterr().err


def test_studies_go_to_their_places_and_leave_the_others(
    docs: Path, made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = docs / "studies.md"
    before = between(page, "influence")
    folder = study(tmp_path, "relations")
    (folder / "command.txt").write_text("wordlight", encoding="utf-8")
    made("make_studies", folder)
    assert between(page, "relations") == "```\nthe table of relations\n```\n"
    assert between(page, "influence") == before != ""
    with pytest.raises(SystemExit):
        made("make_studies", docs)
    assert "holds no study's table" in capsys.readouterr().err
