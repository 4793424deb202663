"""The embedded model on PyTorch and JAX, compared on the same images by the command line."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from wordlight.attribution.maps import AttributionMaps
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.cli.main import main

#: What float32 leaves of a map between the two frameworks, relative to its largest value: the
#: networks agree to 1e-5, and a map is a mean of many.
CLOSE = 1e-4


# `test_compare` of the Flax backend's command line does the same on a tiny model.
@pytest.mark.slow
def test_both_explain_the_same_images(tmp_path):
    # The seventh is the first image on which two of the objects are found.
    asked = ["compare", "-n", "7", "--calibration", "1", "--steps", "1", "--quiet"]
    # With a budget there is no row of all steps.
    asked += ["--method", "daam", "--method", "uniform", "--budget", "1", "--out", str(tmp_path)]
    assert main([*asked, "--framework", "torch", "--framework", "flax"]) == 0
    rows = json.loads((tmp_path / "summary.json").read_text())["headline"]
    best = {row["method"]: row["mean"] for row in rows if row["metric"] == "miou@best"}
    assert set(best) == {
        f"{method}@{framework}" for method in ("daam", "uniform") for framework in ("torch", "flax")
    }
    # Two maps that differ by rounding binarise to the same mask, but for a pixel at the threshold.
    assert abs(best["daam@torch"] - best["daam@flax"]) < 0.01
    assert best["uniform@torch"] == best["uniform@flax"]
    settings = json.loads((tmp_path / "settings.json").read_text())["settings"]
    assert (settings["framework"], list(settings["other frameworks"])) == ("torch", ["flax"])
    kept = list((tmp_path / "samples").iterdir())
    assert {Trajectory.load(path).framework for path in kept} == {"torch"}
    for path in kept:
        torch, flax = (
            AttributionMaps.load(tmp_path / "maps" / one / path.stem / "daam.safetensors")
            for one in ("torch", "flax")
        )
        assert (torch.provenance.framework, flax.provenance.framework) == ("torch", "flax")
        difference = abs(torch.data - flax.data).max() / abs(torch.data).max()
        assert float(difference) < CLOSE
    results = pq.read_table(tmp_path / "results.parquet").to_pandas()
    assert set(results["framework"]) == {"torch", "flax"}
