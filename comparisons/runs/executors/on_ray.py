"""Tasks on a Ray cluster: a worker a device, each with the model loaded once."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray.exceptions import RayActorError, RayTaskError

from wordlight.backends.backend import MissingCapabilityError
from wordlight.comparisons.runs.bench import Bench
from wordlight.comparisons.runs.executors.dispatch import Dispatch
from wordlight.comparisons.runs.executors.executor import Executor, WorkersWarning
from wordlight.comparisons.runs.plan import Plan
from wordlight.comparisons.runs.worker import Damaged, Task, TaskOutcome, Worker, cells_of
from wordlight.comparisons.store import failures
from wordlight.comparisons.store.cells import CellFolder
from wordlight.comparisons.store.failures import Failure
from wordlight.comparisons.store.settings_file import Settings

#: Errors that say all there is to say; of others the worker's traceback is wanted too.
EXPECTED = (ValueError, KeyError, OSError, MissingCapabilityError)
#: How often a worker that dies without having done anything is replaced, over all workers.
_STARTS = 10
#: How many seconds a cluster may take to answer.
_CONNECTING = 10.0
#: After how many seconds without any worker that is said.
_PATIENCE = 60.0


class WorkersLostError(OSError):
    """Workers die as soon as they are started."""


class _Actor:
    """A worker in a process of its own, which loads the model when it is first asked for something.

    So what goes wrong with that is an error that it answers with, and no death.
    """

    def __init__(self, plan: Plan, root: str, damaged: Damaged, folder: str) -> None:
        # Paths that were given relative to the driver's folder mean the same here.
        if os.path.isdir(folder):
            os.chdir(folder)
        self._asked = plan, Path(root), damaged

    @cached_property
    def _worker(self) -> Worker:
        plan, root, damaged = self._asked
        return Worker(Bench(plan), root, damaged)

    def settings(self) -> Settings:
        return self._worker.bench.settings()

    def do(self, task: Task) -> TaskOutcome:
        return self._worker.do(task)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Have what Ray starts on this machine listen to this machine alone.

    That is what Ray does on systems where it makes no clusters; elsewhere it takes an address that
    others reach, whatever address it is given.
    """
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before, there = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(name)
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ[name] = "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        if there is None:
            del os.environ[name]
        else:
            os.environ[name] = there


class RayExecutor(Executor):
    """Workers on a Ray cluster; one that is lost is replaced, and its tasks are done by others.

    Every worker reads and writes the run's folder, which must be the same for all of them. A task
    that loses its worker three times is one that kills workers: the cell that it was at is
    recorded as failed, and the rest of the task is done. A worker gets its first task when it has
    loaded the model: those for which the cluster has no room yet keep nobody waiting.

    Args:
        bench: of the run; models and methods must be named.
        root: the run's folder.
        damaged: the treatment of a file of the run that can't be read.
        workers, address: see ``make_executor``.

    Raises ValueError for a plan that holds objects, ConnectionError where there is no cluster.
    """

    def __init__(
        self,
        bench: Bench,
        root: Path,
        damaged: Damaged,
        *,
        workers: int | None = None,
        address: str | None = None,
    ) -> None:
        plan = bench.plan
        if not plan.by_name:
            raise ValueError(
                "on Ray the model, the data and the methods must be named: backends and "
                "attributors that were made here can't be sent to other machines"
            )
        self._own = not ray.is_initialized()
        if self._own:
            address = address or os.environ.get("RAY_ADDRESS")
            if address:
                _check_reachable(address)
            # Of a cluster that is there, it isn't ours to say.
            dashboard = None if address else False
            with nullcontext() if address else _on_loopback():
                ray.init(address=address, log_to_driver=False, include_dashboard=dashboard)
        self._bench = bench
        self._root = root.resolve()
        # Paths that mean the same on every machine.
        maps = {name: str(Path(folder).resolve()) for name, folder in plan.maps.items()}
        self._asked = (replace(plan, maps=maps), str(self._root), damaged, os.getcwd())
        self._each, room = _resources(workers)
        if workers is not None and workers > room:
            _warn(
                f"the cluster has room for {room} workers now, and {workers} were asked for: the "
                "others start when it has"
            )
        self._actor = ray.remote(**self._each)(_Actor)
        self._actors = [self._start() for _ in range(workers or room)]
        # Those that have loaded the model.
        self._ready: set[Any] = set()
        self._starts = _STARTS

    def _start(self) -> Any:
        return self._actor.remote(*self._asked)

    def settings(self) -> Settings:
        starting = {actor.settings.remote(): actor for actor in self._actors}
        while True:
            first = self._wait(starting, busy=False)
            actor = starting.pop(first)
            try:
                found: Settings = _got(first)
            except RayActorError:
                fresh = self._replace(actor)
                starting[fresh.settings.remote()] = fresh
                continue
            self._ready.add(actor)
            return found

    def map(self, tasks: Iterable[Task]) -> Iterator[TaskOutcome]:
        supply = iter(tasks)
        first = next(supply, None)
        if first is None:
            return
        dispatch: Dispatch[Task, Any] = Dispatch(chain([first], supply), split=Task.apart)
        starting: dict[Any, Any] = {}
        for actor in self._actors:
            if actor in self._ready:
                dispatch.add(actor)
            else:
                starting[actor.settings.remote()] = actor
        running: dict[Any, tuple[Any, Task]] = {}
        while True:
            for actor, task in dispatch.assign():
                running[actor.do.remote(task)] = (actor, task)
            if dispatch.workers and not running:
                return
            ready = self._wait([*running, *starting], busy=bool(running))
            actor = starting[ready] if ready in starting else running[ready][0]
            try:
                answer = _got(ready)
            except RayActorError:
                # Everything else that it had is lost with it.
                running = {ref: held for ref, held in running.items() if held[0] is not actor}
                given_up = None
                if starting.pop(ready, None) is None:
                    given_up = dispatch.worker_lost(actor)
                fresh = self._replace(actor)
                starting[fresh.settings.remote()] = fresh
                if given_up is not None:
                    failed = self._give_up(given_up)
                    dispatch.retry(given_up)
                    yield TaskOutcome(given_up, failures=[failed])
                continue
            if ready in starting:
                self._ready.add(starting.pop(ready))
                dispatch.add(actor)
                continue
            self._starts = _STARTS
            _, task = running.pop(ready)
            dispatch.finished(actor, task)
            done: TaskOutcome = answer
            yield done

    def _wait(self, refs: Iterable[Any], *, busy: bool) -> Any:
        """The first of some answers that is there."""
        waiting = list(refs)
        ready, _ = ray.wait(waiting, num_returns=1, timeout=None if busy else _PATIENCE)
        if not ready:
            each = ", ".join(f"{name} {value}" for name, value in self._each.items())
            _warn(
                f"no worker is ready after {_PATIENCE:.0f} seconds: one may still be loading the "
                f"model, or the cluster has no room for one ({each} each)"
            )
            ready, _ = ray.wait(waiting, num_returns=1)
        return ready[0]

    def _replace(self, lost: Any) -> Any:
        self._starts -= 1
        if not self._starts:
            raise WorkersLostError(
                f"{_STARTS} workers were lost in a row, without a task being done in between: "
                "see Ray's logs for why (out of memory?)"
            )
        fresh = self._start()
        self._actors = [fresh if actor is lost else actor for actor in self._actors]
        self._ready.discard(lost)
        return fresh

    def _give_up(self, task: Task) -> Failure:
        """Record the cell that a task was at as failed; raises where it made none."""
        images = self._bench.of_split(task.split)
        cells = CellFolder(self._root, task.framework)
        for one in cells_of(self._bench, task):
            sample = images.samples[task.index]
            if cells.cell_path(sample, one.name).exists() or failures.is_recorded(
                self._root, task.framework, sample, one.name
            ):
                continue
            failure = Failure(
                task.framework, sample, one.name, "WorkerLost", "its worker was lost three times"
            )
            failures.record(self._root, failure)
            return failure
        raise WorkersLostError(f"workers are lost at {task.kind}, {task.split} {task.index}")

    def close(self) -> None:
        for actor in self._actors:
            ray.kill(actor)
        if self._own:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raises ConnectionError where nobody listens at ``HOST:PORT``, which Ray takes minutes for."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # "auto" and the like: Ray knows at once.
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECTING).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(f"there is no Ray cluster at {address} ({error})") from None


def _warn(text: str) -> None:
    warnings.warn(text, WorkersWarning, stacklevel=3)


def _got(ref: Any) -> Any:
    """Return a worker's answer, or raise what it raised."""
    try:
        return ray.get(ref)
    except RayActorError:
        raise
    except RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, EXPECTED) else error) from None


def _resources(workers: int | None) -> tuple[dict[str, Any], int]:
    """Return the share of its machine that each worker takes, and the number for which there is
    room now: one a GPU, else one a TPU host; else one a machine with all its cores, or as many as
    are wanted, which share them."""
    cluster = ray.cluster_resources()  # type: ignore[no-untyped-call]
    if gpus := int(cluster.get("GPU", 0)):
        return {"num_gpus": 1}, gpus
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    hosts = [node["Resources"] for node in nodes if node["Alive"]]
    if chips := [int(host["TPU"]) for host in hosts if host.get("TPU")]:
        return {"resources": {"TPU": min(chips)}}, len(chips)
    cores = [int(host["CPU"]) for host in hosts if host.get("CPU", 0) >= 1] or [1]
    a_machine = -(-(workers or len(cores)) // len(cores))
    share = max(1, min(cores) // a_machine)
    return {"num_cpus": share}, sum(each // share for each in cores)
