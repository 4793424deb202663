"""How workers on Ray are started, lost and replaced: without Ray, on a cluster that is played."""

from __future__ import annotations

import random
import types
from itertools import chain, count, repeat

import pytest

from tests.comparisons import dataset_files as files
from tests.comparisons.datasets.test_datasets_compared import Inverting
from tests.comparisons.fakes import FakeBackend
from wordlight.comparisons import compare
from wordlight.comparisons.datasets import DatasetWarning, open_dataset
from wordlight.comparisons.datasets.images.dataset_images import split_of_listing
from wordlight.comparisons.runs.bench import Bench
from wordlight.comparisons.runs.executors import make_executor, on_ray
from wordlight.comparisons.runs.listing import read_run
from wordlight.comparisons.runs.plan import Plan
from wordlight.comparisons.runs.worker import Task, TaskOutcome, Worker
from wordlight.comparisons.store import failures

#: Fates of workers: how many answers it gives before it dies.
ALWAYS, NEVER_PLACED = 10**9, -1


class Answering:
    """In the place of the worker that loads a model."""

    def __init__(self, *_asked):
        self.done = []

    def settings(self):
        return {"model": "played"}

    def do(self, task):
        self.done.append(task)
        return TaskOutcome(task, units=1)


class PlayedRay:
    """What the executor asks of Ray; ``fates`` are those of the workers in the order in which they
    are started."""

    def __init__(self, fates, cores=64.0):
        self.fates = iter(fates)
        self.cores = cores
        self.started = []
        self.killed = []
        self.moments = random.Random(0)

    def is_initialized(self):
        return True

    def cluster_resources(self):
        return {}

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": self.cores}}]

    def remote(self, **_resources):
        def start(kind, *asked):
            self.started.append(Played(kind(*asked), next(self.fates)))
            return self.started[-1]

        return lambda kind: types.SimpleNamespace(remote=lambda *asked: start(kind, *asked))

    def kill(self, actor):
        self.killed.append(actor)

    def wait(self, refs, num_returns, timeout=None):
        assert num_returns == 1
        # A worker answers in the order in which it was asked.
        first = {ref.actor: ref for ref in sorted(refs, key=lambda ref: -ref.number)}
        ready = [ref for actor, ref in first.items() if actor.left != NEVER_PLACED]
        if not ready:
            assert timeout is not None, "it would wait for ever"
            return [], refs
        chosen = self.moments.choice(ready)
        return [chosen], [ref for ref in refs if ref is not chosen]

    def get(self, ref):
        return ref.answer()


class Played:
    """A worker's handle."""

    def __init__(self, worker, left):
        self.worker, self.left = worker, left
        self.settings = self.method(worker.settings)
        self.do = self.method(worker.do)

    def method(self, call):
        return types.SimpleNamespace(remote=lambda *given: Answer(self, lambda: call(*given)))


class Answer:
    numbers = count()

    def __init__(self, actor, call):
        self.actor, self.call = actor, call
        self.number = next(self.numbers)

    def answer(self):
        if not self.actor.left:
            raise on_ray.RayActorError
        self.actor.left -= 1
        return self.call()


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setattr("wordlight.backends.loading.load", lambda *_, **__: FakeBackend())
    return Bench(Plan(model="played", methods=["uniform", "random"], n=4, calibration=2))


@pytest.fixture
def executor(bench, tmp_path, monkeypatch):
    def executor(fates, *, workers=4, kind=Answering, cores=64.0):
        ray = PlayedRay(chain(fates, repeat(ALWAYS)), cores)
        monkeypatch.setattr(on_ray, "ray", ray)
        monkeypatch.setattr(on_ray, "_Actor", kind)
        return on_ray.RayExecutor(bench, tmp_path, "stop", workers=workers), ray

    return executor


TASKS = [Task("judge", "test", index % 4, "fake") for index in range(40)]


@pytest.mark.parametrize(
    "fates",
    [
        [ALWAYS] * 4,
        # Some that find no room, some that die while they start, some later.
        [NEVER_PLACED, ALWAYS, NEVER_PLACED, NEVER_PLACED],
        [0, 0, 0, 0],
        [3, 1, 8, NEVER_PLACED, 2, 5],
    ],
)
def test_every_task_is_done_once_and_nobody_waits_for_workers_without_room(executor, fates):
    there, ray = executor(fates)
    assert there.settings() == {"model": "played"}
    done = list(there.map(iter(TASKS)))
    assert sorted(map(id, (one.task for one in done))) == sorted(map(id, TASKS))
    # Workers stay for the next tasks, and nothing is asked of any where there are none.
    started = len(ray.started)
    assert len(list(there.map(TASKS))) == len(TASKS)
    assert list(there.map([])) == []
    assert len(ray.started) == started
    there.close()
    assert len(ray.killed) == 4


def test_workers_that_die_at_once_are_given_up(executor):
    there, ray = executor(repeat(0))
    with pytest.raises(on_ray.WorkersLostError, match="10 workers were lost in a row"):
        there.settings()
    assert len(ray.started) == 4 + 9
    # A task that is done in between begins the count anew.
    there, ray = executor([2, 2] * 15, workers=1)
    assert len(list(there.map(TASKS[:12]))) == 12
    assert len(ray.started) > 10


def test_an_error_of_a_worker_ends_the_run_with_it(executor):
    class Refusing(Answering):
        def settings(self):
            raise ValueError("another release")

    there, _ = executor([], kind=Refusing)
    with pytest.raises(ValueError, match="another release"):
        list(there.map(TASKS))


def test_more_workers_than_there_is_room_for_are_said(executor):
    with pytest.warns(on_ray.WorkersWarning, match="room for 2 workers now, and 5 were asked for"):
        executor([], workers=5, cores=2.0)


def test_waiting_for_the_first_worker_is_said(executor, monkeypatch):
    there, ray = executor([NEVER_PLACED], workers=1)
    original = ray.wait

    def wait(refs, num_returns, timeout=None):
        answer = original(refs, num_returns, timeout)
        ray.started[0].left = ALWAYS
        return answer

    monkeypatch.setattr(ray, "wait", wait)
    with pytest.warns(on_ray.WorkersWarning, match="no worker is ready after 60 seconds"):
        assert len(list(there.map(TASKS))) == len(TASKS)


def test_a_cell_that_kills_its_workers_is_recorded_and_the_rest_is_done(executor, bench, tmp_path):
    deadly = Task("calibrate", "calibration", 1, "fake")
    tasks = [Task("calibrate", "calibration", 0, "fake"), deadly]

    class Fragile(Answering):
        def do(self, task):
            if task is deadly and not list((tmp_path / "failed").rglob("uniform.json")):
                raise on_ray.RayActorError
            return super().do(task)

    there, ray = executor([], workers=2, kind=Fragile)
    done = list(there.map(tasks))
    (failure,) = failures.recorded(tmp_path)
    assert (failure.method, failure.error) == ("uniform", "WorkerLost")
    assert failure.sample == bench.calibration.samples[1]
    assert [one.failures for one in done if one.failures] == [[failure]]
    assert sorted(one.task.index for one in done if not one.failures) == [0, 1]
    assert len(ray.started) == 2 + 3
    # What makes no cells can't be left out.
    with pytest.raises(on_ray.WorkersLostError, match="workers are lost at draw, test 0"):
        there._give_up(Task("draw", "test", 0))


@pytest.fixture
def on_workers(tmp_path, monkeypatch):
    """A comparison by two workers that load a model of their own, of another kind than here."""

    def on_workers(here, there, **options):
        loaded = chain([here], repeat(there))
        monkeypatch.setattr("wordlight.backends.loading.load", lambda *_, **__: next(loaded)())
        monkeypatch.setattr(on_ray, "ray", PlayedRay(repeat(ALWAYS)))
        options = {"methods": ["uniform"], "progress": False, **options}
        return compare("played", out=tmp_path / "out", executor=make_executor("ray", 2), **options)

    return on_workers


class OnGpu(FakeBackend):
    device = "cuda:0"


def test_the_settings_are_those_of_the_workers_devices(on_workers, tmp_path):
    found = on_workers(FakeBackend, OnGpu, n=2, calibration=4)
    assert read_run(tmp_path / "out").settings["device"] == "cuda:0"
    assert found.facts.device == "cuda:0"
    assert "cuda:0 doesn't tell its peak memory" in " ".join(found.text.split())
    again = on_workers(FakeBackend, OnGpu, n=2, calibration=4)
    assert again.to_json() == found.to_json()
    # Workers of yet another kind would mix their cells with these.
    with pytest.raises(ValueError, match="device was 'cuda:0', now 'cpu'"):
        on_workers(OnGpu, FakeBackend, n=2, calibration=4)


def test_images_that_workers_leave_out_are_counted(on_workers, tmp_path):
    root = files.coco_gen(tmp_path / "set", 12)
    # One that the picture, which is drawn here, has no room for.
    (*_, spoiled) = split_of_listing(open_dataset(root).listing, "test")[:8]
    files.save_alpha(root / spoiled.sample / "dog.gt.png", files.DOG[:-2])
    options = {"data": f"coco-gen:{root}", "on_error": "skip", "n": 8, "calibration": 1}
    for _ in range(2):
        with pytest.warns(DatasetWarning, match=f"1 of .* skipped: {spoiled.sample}: the mask"):
            found = on_workers(Inverting, Inverting, **options)
        assert found.facts.n == 7
        assert "7 test images of coco-gen (set), 1 more left out, seen by" in found.text


def test_nobody_listens_at_an_address():
    with pytest.raises(ConnectionError, match=r"there is no Ray cluster at 127\.0\.0\.1:1 \("):
        on_ray._check_reachable("127.0.0.1:1")
    on_ray._check_reachable("auto")


def test_worker_is_what_an_actor_holds(bench, tmp_path):
    assert isinstance(on_ray._Actor(bench.plan, str(tmp_path), "stop", ".")._worker, Worker)
