"""What maps cost, from a method to the table and the page; and the similarity of sanity."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.comparisons.fakes import CONTEXT, FakeBackend, Planted
from wordlight.attribution.maps import Provenance
from wordlight.backends.backend import Conditioning
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons import compare
from wordlight.comparisons.metrics.cost import METRICS
from wordlight.comparisons.metrics.rank_correlation import rank_correlation
from wordlight.comparisons.results.html import write_report
from wordlight.comparisons.store.cells import COMPLETENESS, COST_METRICS, PEAK_BYTES

SPENT = Provenance(
    "it", forward_equivalents=12, seconds=0.5, peak_bytes=2**20, completeness_error=0.25
)


class Telling(FakeBackend):
    """Its device tells that each call held a MiB more than the last."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def reset_peak_bytes(self) -> None:
        self.calls += 1

    def peak_bytes(self) -> int | None:
        return self.calls * 2**20


class Cubic(FakeBackend):
    """Its prediction is the cube of the sum of the embeddings: 1 at the prompt's, 0 at the empty
    prompt's."""

    capabilities = frozenset({"denoise", "denoise_jvp"})

    def _draw(self, prompt: str, seed: int) -> Trajectory:
        embeddings = np.full((CONTEXT, 4), 1 / (4 * CONTEXT), np.float32)
        return replace(super()._draw(prompt, seed), embeddings=embeddings)

    def _denoise(self, latents: Any, timestep: float, conditioning: Conditioning) -> Any:
        return latents + (conditioning.embeddings.sum((1, 2)) ** 3)[:, None, None, None]

    def _denoise_jvp(
        self, latents: Any, timestep: float, conditioning: Conditioning, tangents: Any
    ) -> Any:
        slope = 3 * conditioning.embeddings.sum((1, 2)) ** 2 * tangents.sum((1, 2))
        change = np.broadcast_to(slope[:, None, None, None], (len(slope), *latents.shape[1:]))
        return self._denoise(latents, timestep, conditioning), change


def cells(table: str) -> list[list[str]]:
    lines = (line for line in table.splitlines() if line.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_costs_are_the_images_and_lower_is_better() -> None:
    assert [metric.name for metric in METRICS] == list(COST_METRICS)
    assert [metric.score(SPENT) for metric in METRICS] == [12, 0.5, 2**20, 0.25]
    assert not any(metric.higher_is_better for metric in METRICS)


def test_what_is_not_known_is_left_out() -> None:
    assert [metric.score(Provenance("given")) for metric in METRICS] == [None] * 4


def test_the_completeness_error_stands_in_the_rows_of_maps_that_are_shares(tmp_path) -> None:
    """Of a cubic target one node halfway gives 3/4 of what is to be shared out, two give all."""
    methods = [
        {"method": "integrated-gradients", "n_steps": 1, "name": "ig-1"},
        {"method": "integrated-gradients", "n_steps": 2, "name": "ig-2"},
        "saliency",
    ]
    found = compare(Cubic(), methods, out=tmp_path, n=1, calibration=2, progress=False)
    errors = {name: found.estimate(name, COMPLETENESS) for name in ("ig-1", "ig-2", "saliency")}
    assert errors["ig-1"].mean == pytest.approx(0.25, abs=1e-6)
    assert errors["ig-2"].mean == pytest.approx(0, abs=1e-6)
    assert errors["saliency"].n == 0
    header, _, *lines = cells(found.markdown)
    shown = {line[0]: line[header.index("completeness error %")] for line in lines[:3]}
    assert shown == {"ig-1": "25.0", "ig-2": "0.0", "saliency": "-"}
    assert "completeness error: how much of the push" in " ".join(found.text.split())
    assert "completeness error %" in write_report(tmp_path).read_text("utf-8")


def test_similarity_is_one_of_equal_maps() -> None:
    ramp = np.arange(12.0).reshape(3, 4)
    assert rank_correlation(ramp, np.exp(ramp)) == pytest.approx(1)
    assert rank_correlation(ramp, -ramp) == pytest.approx(-1)
    assert rank_correlation(ramp, np.ones((3, 4))) == 0


def test_peak_memory_stands_beside_the_scores_where_the_device_tells(tmp_path) -> None:
    backend = Telling()
    methods = [Planted(backend, steps=4), "uniform"]
    found = compare(backend, methods, out=tmp_path, n=3, calibration=4, progress=False)
    # Eight calls on the calibration split, then a pair an image.
    assert found.estimate("planted", PEAK_BYTES).mean == 2**20 * np.mean([9, 11, 13])
    lines = list(csv.DictReader(io.StringIO(found.csv)))
    assert {one["method"] for one in lines if one["metric"] == PEAK_BYTES} == {"planted", "uniform"}
    assert found.text.splitlines()[3].endswith("seconds  peak MiB")
    line = next(one for one in found.text.splitlines() if one.startswith("planted"))
    assert line.endswith("11.0")
    assert "peak memory is the device's" in " ".join(found.text.split())
    page = write_report(tmp_path).read_text("utf-8")
    assert "peak MiB" in page
    assert ">11.0<" in page


def test_and_is_left_out_where_it_does_not(tmp_path) -> None:
    found = compare(FakeBackend(), ["uniform"], out=tmp_path, n=3, calibration=4, progress=False)
    assert PEAK_BYTES not in {row.metric for row in found.results}
    assert "cpu doesn't tell its peak memory" in " ".join(found.text.split())
    assert "peak MiB" not in write_report(tmp_path).read_text("utf-8") + found.markdown
