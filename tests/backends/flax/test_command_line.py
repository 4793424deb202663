"""Checkpoints as Stable Diffusion 1.x comes, with PNDM, explained on JAX by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wordlight.attribution.maps import AttributionMaps
from wordlight.comparisons.cli.main import main


def test_attribute(pndm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["attribute", "a red circle", "--model", str(pndm), "--framework", "flax", "--quiet"]
    line += ["--sampling-steps", "2", "-o", str(tmp_path / "out")]
    assert main(line) == 2
    assert "scheduler='ddim'" in capsys.readouterr().err
    assert main([*line, "--scheduler", "ddim"]) == 0
    maps = AttributionMaps.load(tmp_path / "out" / "maps.safetensors")
    assert maps.provenance.framework == "flax"


def test_compare(pndm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["compare", "--model", str(pndm), "--framework", "torch", "--framework", "flax"]
    line += ["--data", "rendered-scenes", "-n", "1", "--calibration", "1", "--steps", "1"]
    line += ["--method", "daam", "--quiet", "--out", str(tmp_path / "out")]
    assert main(line) == 2
    assert "scheduler='ddim'" in capsys.readouterr().err
    assert main([*line, "--scheduler", "ddim"]) == 0
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())["settings"]
    assert settings["scheduler"] == "ddim"
