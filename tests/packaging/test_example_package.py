"""A package of somebody else's: installed by pip, it is found by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "wordlight-banzhaf"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A throwaway folder of packages with the example in it."""
    folder = tmp_path_factory.mktemp("example")
    # Building leaves files beside the sources.
    source = shutil.copytree(EXAMPLE, folder / "source")
    target = folder / "site"
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)],
        check=True,
    )
    return target


def wordlight(site: Path, *arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "wordlight.comparisons.cli.main", *arguments],
        env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        cwd=site,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_it_is_listed(site: Path) -> None:
    rows = {row["name"]: row for row in json.loads(wordlight(site, "methods", "--json"))}
    assert rows["banzhaf"] == {
        "name": "banzhaf",
        "question": "What does the word add to a set of words drawn at random?",
        "family": "perturbation",
        "needs": ["denoise"],
        "paper": "Wang and Jia 2023, arXiv 2205.15466",
        "options": ["steps", "step_weighting", "wrt", "n_pairs", "seed"],
    }
    assert "daam" in rows


def test_its_own_tests_pass(site: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "tests")],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=EXAMPLE,
        check=True,
    )


@pytest.mark.slow
def test_it_is_compared(site: Path, tmp_path: Path) -> None:
    """On the embedded model, at the cost of a method that comes with the library."""
    out = tmp_path / "out"
    options = ["-n", "8", "--calibration", "8", "--steps", "1", "--budget", "60", "--quiet"]
    methods = ["--method", "banzhaf", "--method", "shapley", "--method", "uniform"]
    text = " ".join(wordlight(site, "compare", *methods, *options, "--out", str(out)).split())
    # Two passes a step, and two a pair of sets.
    assert "banzhaf n_pairs 29" in text
    summary = json.loads((out / "summary.json").read_text())
    spent = {
        row["method"]: row["mean"]
        for row in summary["headline"]
        if row["metric"] == "forward-equivalents"
    }
    assert spent["banzhaf"] == 60
    assert 0 < spent["shapley"] <= 60
