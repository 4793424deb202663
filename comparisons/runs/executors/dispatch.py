"""Dispatch of tasks to workers: back-pressure, and tasks of lost workers given to others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

Task = TypeVar("Task")
Worker = TypeVar("Worker")

#: Tasks that a worker has at a time: one to do, one to go on with.
AHEAD = 2
#: How often a task may lose its worker before it is given up.
TRIES = 3


class Dispatch(Generic[Task, Worker]):
    """Hands tasks to workers, and remembers who has what.

    Args:
        tasks: taken only as there is room for them.
        ahead: the most that a worker has at a time.
        tries: the most times that a task is begun.
        split: the tasks that one is done as which would be given up, so that it is seen which of
            them kills workers.
    """

    def __init__(
        self,
        tasks: Iterable[Task],
        *,
        ahead: int = AHEAD,
        tries: int = TRIES,
        split: Callable[[Task], Sequence[Task]] = lambda task: [task],
    ) -> None:
        self._tasks: Iterator[Task] = iter(tasks)
        self._split = split
        self._again: deque[Task] = deque()
        self._ahead = ahead
        self._tries = tries
        # In the order in which they were handed out: the first is the one that is being done.
        self._held: dict[Worker, list[Task]] = {}
        self._losses: list[tuple[Task, int]] = []

    def add(self, worker: Worker) -> None:
        """A worker that can be given tasks."""
        self._held[worker] = []

    def assign(self) -> Iterator[tuple[Worker, Task]]:
        """Return the tasks to hand out now, the idlest worker first."""
        while self._held:
            worker = min(self._held, key=lambda one: len(self._held[one]))
            if len(self._held[worker]) >= self._ahead:
                return
            task = self._next()
            if task is None:
                return
            self._held[worker].append(task)
            yield worker, task

    def finished(self, worker: Worker, task: Task) -> None:
        """A task was done."""
        self._held[worker].remove(task)

    def worker_lost(self, worker: Worker) -> Task | None:
        """A worker is gone: what it had is done by others.

        Gives the task that it was at, where that one has lost its worker so often now that it is
        given up; the caller may ``retry`` it.
        """
        held = self._held.pop(worker)
        if not held:
            return None
        suspect, *rest = held
        self._again.extendleft(reversed(rest))
        losses = 1 + sum(count for task, count in self._losses if task is suspect)
        self._losses = [(task, count) for task, count in self._losses if task is not suspect]
        if losses >= self._tries:
            pieces = self._split(suspect)
            if len(pieces) == 1:
                return suspect
            self._again.extendleft(reversed(pieces))
            return None
        self._losses.append((suspect, losses))
        self._again.appendleft(suspect)
        return None

    def retry(self, task: Task) -> None:
        """Do a task that was given up after all, with as many tries as a new one."""
        self._again.appendleft(task)

    @property
    def workers(self) -> int:
        """The number of workers."""
        return len(self._held)

    def _next(self) -> Task | None:
        if self._again:
            return self._again.popleft()
        return next(self._tasks, None)
