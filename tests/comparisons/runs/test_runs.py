"""The runs of a folder: listed, shown, compared; and files that describe a run."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.comparisons.fakes import FakeBackend, Planted
from wordlight.attribution import registry
from wordlight.attribution.methods.controls import Center, Random, Uniform
from wordlight.comparisons import compare
from wordlight.comparisons.cli.main import main
from wordlight.comparisons.runs.listing import find_runs, read_run
from wordlight.comparisons.runs.options import options_of
from wordlight.comparisons.runs.plan import Arguments
from wordlight.comparisons.store.lock import RunInUseError, locked
from wordlight.comparisons.store.settings_file import settings_hash


class Other(FakeBackend):
    framework = "other"


@pytest.fixture(autouse=True)
def command_line(monkeypatch):
    kinds = {"torch": FakeBackend, "flax": Other}
    monkeypatch.setattr(
        "wordlight.backends.loading.load",
        lambda _model, *, framework, **_how: kinds[framework](),
    )
    known = {"planted": Planted, "uniform": Uniform, "center": Center, "random": Random}
    monkeypatch.setattr(registry, "available", lambda: known)


SMALL = ["-n", "3", "--calibration", "4", "--quiet"]
TWO = ["--method", "planted", "--method", "uniform"]


def do(capsys, *argv, status=0):
    assert main([str(one) for one in argv]) == status
    told = capsys.readouterr()
    return told.err if status else told.out


def test_several_frameworks_make_maps_of_the_same_images(tmp_path, capsys):
    both = ["--framework", "torch", "--framework", "flax"]
    text = do(capsys, "compare", *SMALL, *TWO, *both, "--out", tmp_path)
    assert "planted (other)" in text
    assert "maps by fake and other, of the same images, sampled by fake" in " ".join(text.split())
    rows = json.loads((tmp_path / "summary.json").read_text())["headline"]
    assert {(row["framework"], row["method"]) for row in rows} == {
        (framework, f"{method}@{framework}")
        for framework in ("fake", "other")
        for method in ("planted", "uniform")
    }
    value = {(r["framework"], r["metric"]): r["mean"] for r in rows if "planted" in r["method"]}
    assert value["fake", "miou@best"] == value["other", "miou@best"] > 0.8
    settings = json.loads((tmp_path / "settings.json").read_text())["settings"]
    assert settings["framework"] == "fake"
    assert list(settings["other frameworks"]) == ["other"]
    assert {p.name for p in (tmp_path / "maps").iterdir()} == {"fake", "other"}
    assert "named twice" in do(
        capsys, "compare", *both, "--framework", "flax", "--out", tmp_path / "x", status=2
    )


def test_a_list_says_how_far_each_run_is(tmp_path, capsys):
    do(capsys, "compare", *SMALL, *TWO, "--out", tmp_path / "a" / "first")
    do(capsys, "compare", *SMALL, *TWO, "--out", tmp_path / "b")
    (tmp_path / "b/cells/fake/scenes-test-0001/planted.parquet").unlink()
    assert [one.name for one in find_runs(tmp_path)] == ["first", "b"]
    text = do(capsys, "runs", "list", tmp_path)
    first, second = text.splitlines()[2:]
    assert "finished" in first
    assert "stopped: 13 of 14 cells" in second
    assert "planted, uniform" in second
    told = json.loads(do(capsys, "runs", "list", tmp_path, "--json"))
    assert [(one["state"], one["made"], one["cells"]) for one in told] == [
        ("finished", 14, 14),
        ("stopped", 13, 14),
    ]
    # A study's settings, or what another program calls so, hide no run.
    for name, text in (("study", '{"hash": "", "settings": {}}'), ("other", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.json").write_text(text)
    assert len(json.loads(do(capsys, "runs", "list", tmp_path, "--json"))) == 2
    assert "no runs in" in do(capsys, "runs", "list", tmp_path / "a/first/maps")
    assert "there is no folder" in do(capsys, "runs", "list", tmp_path / "c", status=2)


def test_a_run_is_shown_with_its_settings_versions_and_table(tmp_path, capsys):
    do(capsys, "compare", *SMALL, *TWO, "--out", tmp_path)
    text = do(capsys, "runs", "show", tmp_path)
    for needed in ("finished", "numpy ", '"seed": 0', "mIoU@best"):
        assert needed in text
    told = json.loads(do(capsys, "runs", "show", tmp_path, "--json"))
    assert told["settings"]["n"] == 3
    assert "holds no run" in do(capsys, "runs", "show", tmp_path / "maps", status=2)


def test_two_runs_differ_in_settings_and_scores(tmp_path, capsys):
    one, two, third = tmp_path / "1", tmp_path / "2", tmp_path / "3"
    do(capsys, "compare", *SMALL, *TWO, "--out", one)
    do(capsys, "compare", *SMALL, "--method", "uniform", "--steps", "2", "--out", two)
    do(capsys, "compare", *SMALL, *TWO, "--seed", "5", "--out", third)
    text = do(capsys, "runs", "diff", one, two)
    assert "steps was 4, now 2" in text
    assert "3 of them the same" in text
    assert f"only in {one}: planted" in text
    told = json.loads(do(capsys, "runs", "diff", one, two, "--json"))
    (uniform,) = told["methods"]
    assert uniform["difference"]["mean"] == uniform["difference"]["low"] == 0
    # Another seed draws other images: there is nothing to pair.
    told = json.loads(do(capsys, "runs", "diff", one, third, "--json"))
    assert told["same_images"] == 0
    assert {method["difference"] for method in told["methods"]} == {None}


def test_the_difference_is_of_the_words_that_both_scored(tmp_path, capsys):
    backend = FakeBackend()
    for name, method in (("1", Uniform(backend)), ("2", Planted(backend, steps=4))):
        compare(backend, {"m": method}, out=tmp_path / name, n=4, calibration=4, progress=False)
    (told,) = json.loads(do(capsys, "runs", "diff", tmp_path / "1", tmp_path / "2", "--json"))[
        "methods"
    ]
    assert told["difference"]["mean"] == pytest.approx(
        told["second"]["mean"] - told["first"]["mean"]
    )
    assert 0 < told["difference"]["low"] < told["difference"]["mean"] < told["difference"]["high"]


def test_progress_is_shown_with_the_time_that_is_left(tmp_path, capsys):
    command = ["compare", "-n", "3", "--calibration", "4", *TWO, "--out", str(tmp_path)]
    assert main(command) == 0
    # How much of how much, and the time that it took: no terminal is here, so in lines.
    bars = capsys.readouterr().err
    assert re.search(r"^drawing images: 7 of 7 images, \d+ s$", bars, re.MULTILINE)
    assert re.search(r"^making maps: 14 of 14 maps, \d+ s$", bars, re.MULTILINE)
    (tmp_path / "cells/fake/scenes-test-0001/planted.parquet").unlink()
    assert main(command) == 0
    bars = capsys.readouterr().err
    assert re.search(r"^making maps: 14 of 14 maps, \d+ s$", bars, re.MULTILINE)
    assert main([*command, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


CONFIG = """
n = 3
calibration = 4
scheduler = "euler"
methods = ["uniform", {method = "center", name = "narrow", width = 0.1}]
"""


def test_a_file_describes_a_run_and_flags_override_it(tmp_path, capsys):
    (tmp_path / "run.toml").write_text(CONFIG + f'out = "{tmp_path}/out"\n')
    do(capsys, "compare", "--config", tmp_path / "run.toml", "--quiet")
    settings = read_run(tmp_path / "out").settings
    assert settings["methods"]["narrow"]["width"] == 0.1
    assert settings["scheduler"] == "euler"
    assert "n was 3, now 2" in do(
        capsys, "compare", "--config", tmp_path / "run.toml", "-n", "2", status=2
    )
    # What was written beside the results repeats them, also as TOML's elder brother.
    again = ["--config", tmp_path / "out" / "run.yaml", "--out", tmp_path / "again", "--quiet"]
    do(capsys, "compare", *again)
    assert read_run(tmp_path / "again").settings == settings


def test_how_images_are_drawn_belongs_to_a_run(tmp_path, capsys):
    ask = ["compare", *SMALL, "--method", "uniform", "--out", tmp_path / "out"]
    drawn = ["--sampling-steps", "8", "--guidance", "1.5", "--dtype", "float32"]
    do(capsys, *ask, *drawn)
    settings = read_run(tmp_path / "out").settings
    assert (settings["sampling-steps"], settings["guidance"]) == (8, 1.5)
    again = ["compare", "--config", tmp_path / "out/run.yaml", "--quiet"]
    do(capsys, *again, "--out", tmp_path / "again")
    assert read_run(tmp_path / "again").settings == settings
    other = do(capsys, *ask, *drawn, "--guidance", "3", status=2)
    assert "guidance was 1.5, now 3.0" in other
    given = {"out": tmp_path / "no", "guidance": 3.0, "progress": False}
    with pytest.raises(ValueError, match=r"a model that is named.*\n?") as refused:
        compare(FakeBackend(), ["uniform"], **given)
    assert "backend.draw_with(guidance_scale=...)" in str(refused.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"n": 0}, "n must be a whole number from 1 to 1000000, not 0"),
        ({"steps": 2.5}, "steps must be a whole number, 1 or more, not 2.5"),
        ({"seed": -1}, "seed must be a whole number, 0 or more, not -1"),
        ({"methods": "uniform"}, "methods must be a list of methods, ['uniform']"),
        ({"methods": Uniform}, "methods must be a list of methods"),
        ({"methods": [Uniform]}, "say 'uniform', or construct it, Uniform(backend)"),
        ({"model": 3, "methods": ["uniform"]}, "a name or what load(...) gives, not a int"),
    ],
)
def test_bad_arguments_in_python_are_named(tmp_path, given, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        compare(**{"model": FakeBackend(), "out": tmp_path / "out", "progress": False, **given})


def test_methods_are_typed_with_options(tmp_path, capsys):
    typed = ["--method", "center,width=0.1,name=narrow", "--method", "center,width=0.5"]
    do(capsys, "compare", *SMALL, *typed, "--out", tmp_path / "out")
    methods = read_run(tmp_path / "out").settings["methods"]
    assert {name: one["width"] for name, one in methods.items()} == {"narrow": 0.1, "center": 0.5}
    twice = ["--method", "center,width=0.1", "--method", "center,width=0.5"]
    assert "two rows would be called 'center'" in do(
        capsys, "compare", *SMALL, *twice, "--out", tmp_path / "no", status=2
    )


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.toml", "m = 3\nsteeps = 2", "no meaning for m, steeps; its keys can be model"),
        ("a.toml", 'n = "3"', "n must be a whole number from 1 to 1000000, not '3'"),
        ("a.toml", "n = true", "n must be a whole number"),
        ("a.toml", "n = ", "is malformed"),
        ("a.yaml", "n: [", "is malformed"),
        ("a.yaml", "!!python/object/apply:os.system ['true']", "is malformed"),
        ("a.yaml", "- n", "must hold keys"),
        ("a.yaml", "n: 3\nn: 4", "is malformed: it has a key twice"),
        ("a.yaml", "n: 9999999999", "n must be a whole number from 1 to 1000000"),
        ("a.toml", "methods = [3]", "methods must be a list of names"),
        ("a.toml", 'methods = [{method = "center", size = 3}]', "center has no option 'size'"),
        ("a.toml", 'methods = [{method = "centre"}]', "did you mean center"),
        ("a.toml", "framework = 3", "framework must be text, or a list of texts"),
        ("a.toml", 'scheduler = "pndm"', "scheduler must be 'ddim' or 'euler', not 'pndm'"),
        ("a.txt", "", "must end in"),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path, capsys, name, text, says):
    (tmp_path / name).write_text(text)
    line = do(capsys, "compare", "--config", tmp_path / name, "--out", tmp_path / "out", status=2)
    assert says in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("other", [{"about": 5}, {"settings": None}])
def test_settings_that_are_no_object_are_damaged(tmp_path, other):
    held = {"settings": {}, "about": {}, **other}
    held["hash"] = settings_hash(held["settings"])
    (tmp_path / "settings.json").write_text(json.dumps(held))
    with pytest.raises(ValueError, match=r"settings\.json is damaged"):
        read_run(tmp_path)


def test_every_argument_is_said_in_python_on_the_command_line_and_in_the_docstring(capsys):
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    told = capsys.readouterr().out
    python = set(inspect.signature(compare).parameters)
    said = set(re.findall(r"\w+", inspect.getdoc(compare).partition("Args:")[2]))
    for option in options_of(Arguments):
        assert option.flags[-1] in told
        assert option.name in python & said
    assert python - {option.name for option in options_of(Arguments)} == {"progress", "command"}


HOLD = """
import sys, time
from pathlib import Path
from wordlight.comparisons.store.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_at_once_are_refused_and_a_dead_ones_lock_is_taken_over(tmp_path):
    root = str(Path(__file__).parents[3] / "src")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        owner = f"in use by process {holder.pid} on "
        with pytest.raises(RunInUseError, match=owner), locked(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
    with locked(tmp_path):
        assert list(tmp_path.iterdir())
    # Nothing else is in the folder, so it is left empty.
    assert [one for one in tmp_path.iterdir() if one.name != ".running.json"] == []
