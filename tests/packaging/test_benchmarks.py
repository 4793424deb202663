"""Benchmarks run, at the smallest sizes: what they measure is for a machine with nothing else to
do."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from wordlight.attribution import DAAM

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a benchmark by name; gives what it prints."""
    monkeypatch.syspath_prepend(str(FOLDER))
    threads = torch.get_num_threads()

    def run(name, *argv, **changes):
        module = importlib.import_module(name)
        for what, value in changes.items():
            monkeypatch.setattr(module, what, value)
        monkeypatch.setattr(sys, "argv", [name, *argv])
        module.main()
        return capsys.readouterr().out

    yield run
    torch.set_num_threads(threads)


def test_methods(run):
    small = ("--device", "cpu", "--steps", "2", "--seen", "1", "--rounds", "1")
    printed = run("bench_methods", *small, "--method", "daam")
    for line in ("drawing an image", "daam, 1 steps", "daam, every step"):
        assert re.search(rf"\| {line} \| \d+\.\d", printed)
    assert "on cpu, float32" in printed
    printed = run("bench_methods", *small, "--table", "rows", ROWS=(1, 2))
    assert printed.count("\n|") == 4


def test_models_of_random_weights_are_of_the_sizes_that_they_say(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    pipe = importlib.import_module("models").build("sd15", "meta")
    counts = [
        sum(weights.numel() for weights in part.parameters())
        for part in (pipe.unet, pipe.text_encoder, pipe.vae)
    ]
    # Of the published files of Stable Diffusion 1.5.
    assert counts == [859_520_964, 123_060_480, 83_653_863]


def test_rounds(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    measuring = importlib.import_module("measuring")
    done: list[str] = []
    works = {name: lambda name=name: done.append(name) for name in "abc"}
    found = measuring.rounds_of(works, 3)
    assert {name: len(values) for name, values in found.items()} == {"a": 3, "b": 3, "c": 3}
    assert done[:3] == ["a", "b", "c"]
    assert all(sorted(done[at : at + 3]) == ["a", "b", "c"] for at in (3, 6, 9))
    # One round there always is.
    assert len(measuring.rounds_of(works, 3, within=-1)["a"]) == 1


def test_the_limit(run):
    # Half a percent of the UNet's arithmetic would be forty times what its shapes say.
    share = float(re.search(r"layers: ([\d.]+)%", run("bench_limit"))[1])
    assert 0.05 < share < 0.5


def test_replays(run):
    assert "daam: " in run("bench_replay", ROUNDS=1, METHODS=(DAAM,))


def test_images(run):
    printed = run("bench_images", "--images", "2", "--rounds", "1", "--methods", "daam")
    off = float(re.search(r"daam, 4 steps: .* times as fast .*, maps off by (\S+)", printed)[1])
    assert off < 1e-5


def test_tracing(run):
    # What is held takes runs of 50 steps, and is tested where tracing is.
    small = ("--rounds", "1", "--steps", "1", "--sizes", "64", "64x2", "--no-held")
    printed = run("bench_tracing", *small)
    assert printed.count("traced, maps included  ") == 4
    assert "64 px, 2 images, output latent" in printed


@pytest.mark.slow  # compiles for half a minute
def test_flax(run):
    small = ("--device", "cpu", "--rounds", "1", "--steps", "2", "--side", "64")
    told = json.loads(run("bench_flax", *small, "--json"))
    # The same weights and noise, in float32.
    for work in ("sampling", "gradients"):
        assert told[work]["largest difference of maps, of the largest value"] < 1e-3
        assert told[work]["flax/torch"] > 0


def test_the_page_of_performance_is_made_of_its_commands(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER.parent / "docs"))
    made = importlib.import_module("make_performance")
    page = tmp_path / "performance.md"
    page.write_text(made.PAGE.read_text("utf-8"), "utf-8")
    commands = made.parts(page)
    assert {"methods", "rows", "tracing"} <= set(commands)
    # As many as there are parts, of which each names a benchmark that there is.
    assert page.read_text("utf-8").count("<!-- /") == len(commands)
    assert all((FOLDER.parent / command.split()[0]).is_file() for command in commands.values())

    def run(command, **_how):
        failed = "bench_flax" in command[1]
        return SimpleNamespace(
            returncode=int(failed), stdout="| a |\n|---|\n| 1 |\n", stderr="no such device\n"
        )

    monkeypatch.setattr(made.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["make_performance", "--page", str(page)])
    made.main()
    text = page.read_text("utf-8")
    assert "<!-- rows -->\n| a |\n|---|\n| 1 |\n<!-- /rows -->" in text
    # What fails here stays as it was.
    assert "<!-- flax -->\nnot measured\n<!-- /flax -->" in text
