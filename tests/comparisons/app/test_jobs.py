"""The app's jobs: one at a time, in order, and none takes the app with it."""

import gc
import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.comparisons.app.slow_model import SlowModel
from wordlight.attribution import AttributionMaps
from wordlight.comparisons.app.jobs import MOST_JOBS, JobQueue, JobRefusedError, JobRequest

PROMPT = "a red circle"


@pytest.fixture
def workshop():
    return JobQueue(["toy"], lambda name: SlowModel())


@pytest.fixture
def slow():
    return JobQueue(["toy"], lambda name: SlowModel(0.02))


def ask(**options):
    return JobRequest(
        **{"model": "toy", "prompt": PROMPT, "methods": ["daam"], "steps": 2, **options}
    )


def done(workshop, folder, **options):
    job = workshop.start(ask(**options), folder)
    assert job.done.wait(60)
    return job


def test_a_job_gives_page_maps_and_masks(workshop, tmp_path):
    job = done(workshop, tmp_path, methods=["daam", "occlusion"], threshold=0.5)
    assert job.error is None
    assert job.made.viewer.startswith("<iframe")
    names = [file.rpartition("/")[2] for file in job.made.files]
    assert names == [
        "image.png",
        "wordlight.html",
        "maps-daam.safetensors",
        "maps-occlusion.safetensors",
        "masks.zip",
    ]
    maps = AttributionMaps.load(tmp_path / "maps-daam.safetensors")
    assert [word.text for word in maps.words] == PROMPT.split()
    with zipfile.ZipFile(tmp_path / "masks.zip") as archive:
        assert len(archive.namelist()) == 6
        mask = np.asarray(Image.open(io.BytesIO(archive.read("daam/03.png"))))
    np.testing.assert_array_equal(mask, maps["circle"].mask(0.5))


def test_seed_and_negative_prompt_reach_the_model(workshop, tmp_path):
    done(workshop, tmp_path, seed=7, negative_prompt="blue")
    maps = AttributionMaps.load(tmp_path / "maps-daam.safetensors")
    assert maps.provenance.seed == 7


def test_a_picture_is_explained_and_said_to_be_scaled(workshop, tmp_path):
    picture = Image.new("RGB", (200, 100), "red")
    job = done(workshop, tmp_path, picture=picture)
    assert job.error is None
    assert "cut and scaled" in job.made.remarks[0]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": "a" * 3000}, "at most 2000"),
        ({"methods": []}, "1 to 8 methods"),
        ({"steps": 0}, "steps is 1 to"),
        ({"seed": -1}, "seed is 0"),
        ({"model": "/etc"}, "no model '/etc' here; there are toy"),
    ],
)
def test_a_bad_job_is_refused_at_once(workshop, tmp_path, options, reason):
    with pytest.raises(JobRefusedError, match=reason):
        workshop.start(ask(**options), tmp_path)


def test_memory_that_runs_out_and_faults_end_the_job_alone(workshop, tmp_path, capsys):
    assert "Memory ran out" in done(workshop, tmp_path / "a", prompt="memory").error
    assert "ZeroDivisionError" in done(workshop, tmp_path / "b", prompt="a fault").error
    assert "division by zero" in capsys.readouterr().err, "the operator sees the traceback"
    assert "200 tokens" in done(workshop, tmp_path / "c", prompt="red " * 200).error
    assert done(workshop, tmp_path / "d").error is None


def test_jobs_wait_for_each_other_and_can_leave_the_line(slow, tmp_path):
    first = slow.start(ask(steps=100), tmp_path / "1")
    second = slow.start(ask(), tmp_path / "2")
    third = slow.start(ask(), tmp_path / "3")
    assert [slow.waiting_before(job) for job in (first, second, third)] == [0, 1, 2]
    slow.cancel(second)
    assert second.done.wait(5)
    assert second.error == "Cancelled."
    assert not first.done.is_set(), "a waiting job left before the first had ended"
    assert slow.waiting_before(third) == 1
    slow.cancel(first)
    assert first.done.wait(5)
    assert (first.error, first.made) == ("Cancelled.", None)
    assert third.done.wait(30)
    assert third.error is None


def test_the_line_is_not_endless(slow, tmp_path):
    jobs = [slow.start(ask(steps=200), tmp_path) for _ in range(MOST_JOBS)]
    with pytest.raises(JobRefusedError, match="waiting already"):
        slow.start(ask(), tmp_path)
    for job in jobs:
        slow.cancel(job)
    assert all(job.done.wait(10) for job in jobs)


@pytest.mark.slow
def test_memory_is_flat_over_many_jobs(workshop, tmp_path):
    held = []
    tracemalloc.start()
    try:
        for number in range(50):
            assert done(workshop, tmp_path / str(number)).error is None
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # One job's page and maps are some 200 kB: were jobs kept, forty of them would be 8 MB.
    assert held[-1] - held[9] < 1e6
