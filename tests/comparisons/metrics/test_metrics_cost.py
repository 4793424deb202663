"""What maps cost, from a method to the table and the page; and the similarity of sanity."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from tests.comparisons.fakes import FakeBackend, Planted
from wordlight.attribution.maps import Provenance
from wordlight.comparisons import compare
from wordlight.comparisons.metrics.cost import METRICS
from wordlight.comparisons.metrics.rank_correlation import rank_correlation
from wordlight.comparisons.results.html import write_report
from wordlight.comparisons.store.cells import COST_METRICS, PEAK_BYTES

SPENT = Provenance("it", forward_equivalents=12, seconds=0.5, peak_bytes=2**20)


class Telling(FakeBackend):
    """Its device tells that each call held a MiB more than the last."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def reset_peak_bytes(self) -> None:
        self.calls += 1

    def peak_bytes(self) -> int | None:
        return self.calls * 2**20


def test_costs_are_the_images_and_lower_is_better() -> None:
    assert [metric.name for metric in METRICS] == list(COST_METRICS)
    assert [metric.score(SPENT) for metric in METRICS] == [12, 0.5, 2**20]
    assert not any(metric.higher_is_better for metric in METRICS)


def test_what_is_not_known_is_left_out() -> None:
    assert [metric.score(Provenance("given")) for metric in METRICS] == [None] * 3


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
