"""Maps of several images of a run, made side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tests.comparisons.fakes import CONTEXT, FakeBackend, Planted
from wordlight.attribution.question import Answer, Question
from wordlight.backends.backend import Array, Conditioning
from wordlight.backends.gathering import meet
from wordlight.comparisons import compare
from wordlight.comparisons.results.comparison import Comparison
from wordlight.comparisons.runs.executors.dispatch import TRIES, Dispatch
from wordlight.comparisons.runs.worker import Task

N, CALIBRATION = 10, 3


class Sharing(FakeBackend):
    """Images may share its passes; keeps the rows of each."""

    shares_passes = True

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def rows_together(self, kind: str, latents: Array, conditioning: Conditioning) -> int:
        return 64

    def _denoise(self, latents: Array, timestep: float, conditioning: Conditioning) -> Array:
        self.rows.append(len(latents))
        return latents


class Asking(Planted):
    """Asks the model once an image; fails on some images, or ends the run at one of them."""

    name = "asking"
    needs = frozenset({"denoise"})
    broken: ClassVar[frozenset[str]] = frozenset()
    ends_at: ClassVar[str] = ""

    def _attribute(self, question: Question) -> Answer:
        run = question.trajectory
        told = Conditioning(np.zeros((1, CONTEXT, 4), np.float32))
        self.backend.denoise(run.latents[:1], 1.0, told)
        self.backend.evaluations.forward -= 1
        if run.prompt in self.broken:
            raise RuntimeError("too brittle")
        if run.prompt == self.ends_at:
            raise KeyboardInterrupt
        return super()._attribute(question)


def run(backend: FakeBackend, out: Path, methods: Sequence[Any], **options: Any) -> Comparison:
    given = {"n": N, "calibration": CALIBRATION, "progress": False, **options}
    return compare(backend, methods, out=out, **given)


def shown(found: Comparison) -> list[dict[str, Any]]:
    return [row for row in found.to_json() if row["metric"] != "seconds"]


def test_images_share_passes_and_the_table_stays(tmp_path: Path) -> None:
    apart, sharing = FakeBackend(), Sharing()
    apart._denoise = lambda latents, *_: latents  # type: ignore[method-assign]
    alone = run(apart, tmp_path / "apart", [Asking(apart, steps=4), "center", "shuffled-word"])
    found = run(sharing, tmp_path / "shared", [Asking(sharing, steps=4), "center", "shuffled-word"])
    assert shown(found) == shown(alone)
    # Three calibration images, then the test images in eights.
    assert sharing.rows == [3, 8, 2]
    run(sharing, tmp_path / "shared", [Asking(sharing, steps=4), "center", "shuffled-word"])
    assert sharing.rows == [3, 8, 2]


def test_an_image_that_fails_loses_its_own_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Sharing()
    methods = [Asking(backend, steps=4), "shuffled-word"]
    prompt = backend_prompts(tmp_path, 4)
    monkeypatch.setattr(Asking, "broken", frozenset({prompt}))
    found = run(backend, tmp_path / "out", methods)
    assert {(one.sample, one.method, one.message) for one in found.failures} == {
        ("scenes-test-0004", name, "too brittle") for name in ("asking", "shuffled-word.asking")
    }
    # What failed was asked once more, by itself, and not for its shuffled words.
    assert backend.rows == [3, 8, 1, 2]


def test_a_run_that_goes_on_makes_images_in_the_same_company(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Sharing()
    methods = [Asking(backend, steps=4)]
    monkeypatch.setattr(Asking, "ends_at", backend_prompts(tmp_path, 5))
    with pytest.raises(KeyboardInterrupt):
        run(backend, tmp_path / "out", methods)
    assert backend.rows == [3, 8]
    monkeypatch.setattr(Asking, "ends_at", "")
    whole = run(backend, tmp_path / "out", methods)
    assert backend.rows == [3, 8, 8, 2]
    for lost in (1, 6):
        (tmp_path / f"out/maps/fake/scenes-test-000{lost}/asking.safetensors").unlink()
        (tmp_path / f"out/cells/fake/scenes-test-000{lost}/asking.parquet").unlink()
    again = run(backend, tmp_path / "out", methods)
    assert backend.rows == [3, 8, 8, 2, 8]
    assert shown(again) == shown(whole)


def backend_prompts(tmp_path: Path, index: int) -> str:
    """The prompt of a test image."""
    backend = FakeBackend()
    run(backend, tmp_path / "prompts", ["center"], n=index + 1, calibration=1)
    return backend.drawn[-1]


def test_a_company_that_kills_workers_is_done_image_by_image() -> None:
    company = Task("judge", "test", 8, "fake", n=3)
    dispatch: Dispatch[Task, str] = Dispatch([company], ahead=1, split=Task.apart)
    for number in range(TRIES):
        dispatch.add(f"lost {number}")
        # The same images, so that a worker that was lost by chance changes no map.
        assert [task for _, task in dispatch.assign()] == [company]
        assert dispatch.worker_lost(f"lost {number}") is None
    for index in (8, 9, 10):
        dispatch.add(f"worker {index}")
    assert [(task.index, task.n) for _, task in dispatch.assign()] == [(8, 1), (9, 1), (10, 1)]


def test_a_wait_within_a_method_is_no_end_of_it(tmp_path: Path) -> None:
    """Images that ask different things wait for nobody."""

    class Uneven(Asking):
        name = "uneven"

        def _attribute(self, question: Question) -> Answer:
            for turn in range(len(question.players) % 3):
                meet(("turn", turn), turn, lambda turns: turns)
            return super()._attribute(question)

    backend = Sharing()
    found = run(backend, tmp_path / "out", [Uneven(backend, steps=4)])
    assert not found.failures
    assert sum(backend.rows) == N + CALIBRATION
