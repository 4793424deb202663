"""Tasks on a Ray cluster: a worker a device, each with the model loaded once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from wordlight.comparisons import failures
from wordlight.comparisons.cells import CellFolder
from wordlight.comparisons.executors.dispatch import Dispatch
from wordlight.comparisons.executors.executor import Executor
from wordlight.comparisons.failures import Failure
from wordlight.comparisons.plan import Bench, Plan
from wordlight.comparisons.settings_file import Settings
from wordlight.comparisons.worker import Damaged, Done, Task, Worker, cells_of

#: How often a worker that dies without having done anything is replaced, over all workers.
_STARTS = 10


class WorkersLostError(OSError):
    """Workers die as soon as they are started."""


class _Actor:
    """A worker in a process of its own."""

    def __init__(self, plan: Plan, root: str, damaged: Damaged) -> None:
        self._worker = Worker(Bench(plan), Path(root), damaged)

    def settings(self) -> Settings:
        return self._worker.bench.settings()

    def do(self, task: Task) -> Done:
        return self._worker.do(task)


class RayExecutor(Executor):
    """Workers on a Ray cluster; one that is lost is replaced, and its tasks are done by others.

    Every worker reads and writes the run's folder, which must be the same for all of them. A task
    that loses its worker three times is one that kills workers: the cell that it was at is
    recorded as failed, and the rest of the task is done.

    Args:
        plan: of the run; models and methods must be named.
        root: the run's folder.
        damaged: what becomes of a file of the run that can't be read.
        workers, address: see ``make_executor``.

    Raises ValueError for a plan that holds objects, ConnectionError where there is no cluster.
    """

    def __init__(
        self,
        plan: Plan,
        root: Path,
        damaged: Damaged,
        *,
        workers: int | None = None,
        address: str | None = None,
    ) -> None:
        if not plan.by_name:
            raise ValueError(
                "on Ray the model, the data and the methods must be named: backends and "
                "attributors that were made here can't be sent to other machines"
            )
        self._own = not ray.is_initialized()
        if self._own:
            address = address or os.environ.get("RAY_ADDRESS")
            # Of a cluster that is there, it isn't ours to say.
            dashboard = None if address else False
            ray.init(address=address, log_to_driver=False, include_dashboard=dashboard)
        self._root = root.resolve()
        # Paths that mean the same on every machine.
        maps = {name: str(Path(folder).resolve()) for name, folder in plan.maps.items()}
        self._plan = replace(plan, maps=maps)
        self._damaged: Damaged = damaged
        self._bench: Bench | None = None
        self._resources, there = _resources()
        self._wanted = workers or there
        self._actor = ray.remote(**self._resources)(_Actor)
        self._actors = [self._start() for _ in range(self._wanted)]
        self._starts = _STARTS

    def _start(self) -> Any:
        return self._actor.remote(self._plan, str(self._root), self._damaged)

    def settings(self) -> Settings:
        found: Settings = _got(self._actors[0].settings.remote())
        return found

    def map(self, tasks: Iterable[Task]) -> Iterator[Done]:
        dispatch: Dispatch[Task, Any] = Dispatch(tasks)
        for actor in self._actors:
            dispatch.add(actor)
        running: dict[Any, tuple[Any, Task]] = {}
        while True:
            for actor, task in dispatch.assign():
                running[actor.do.remote(task)] = (actor, task)
            if not running:
                return
            (ready, *_), _ = ray.wait(list(running), num_returns=1)
            if ready not in running:
                continue
            actor, task = running.pop(ready)
            try:
                done: Done = _got(ready)
            except RayActorError:
                # Everything else that it had is lost with it.
                running = {ref: held for ref, held in running.items() if held[0] is not actor}
                given_up = dispatch.lost(actor)
                self._replace(actor, dispatch)
                if given_up is not None:
                    failed = self._give_up(given_up)
                    dispatch.retry(given_up)
                    yield Done(given_up, failures=[failed])
                continue
            self._starts = _STARTS
            dispatch.finished(actor, task)
            yield done

    def _replace(self, lost: Any, dispatch: Dispatch[Task, Any]) -> None:
        self._starts -= 1
        if not self._starts:
            raise WorkersLostError(
                f"{_STARTS} workers were lost in a row, without a task being done in between: "
                "see Ray's logs for why (out of memory?)"
            )
        fresh = self._start()
        self._actors = [fresh if actor is lost else actor for actor in self._actors]
        dispatch.add(fresh)

    def _give_up(self, task: Task) -> Failure:
        """Record the cell that a task was at as failed; raises where it made none."""
        if self._bench is None:
            self._bench = Bench(self._plan)
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


def _got(ref: Any) -> Any:
    """What a worker answered, or what it raised."""
    try:
        return ray.get(ref)
    except RayActorError:
        raise
    except RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, ValueError | OSError) else error) from None


def _resources() -> tuple[dict[str, Any], int]:
    """What each worker takes of its machine, and how many there is room for: one a GPU, else one a
    TPU host, else one a machine."""
    cluster = ray.cluster_resources()  # type: ignore[no-untyped-call]
    if gpus := int(cluster.get("GPU", 0)):
        return {"num_gpus": 1}, gpus
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    hosts = [node["Resources"] for node in nodes if node["Alive"]]
    if chips := [int(host["TPU"]) for host in hosts if host.get("TPU")]:
        return {"resources": {"TPU": min(chips)}}, len(chips)
    return {"num_cpus": 1}, len(hosts)
