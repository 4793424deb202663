"""The interface of executors, and the one that uses this process alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

from wordlight.comparisons.runs.worker import Task, TaskOutcome, Worker
from wordlight.comparisons.store.settings_file import Settings


class WorkersWarning(UserWarning):
    """Fewer workers than were asked for."""


class Executor(ABC):
    """Does tasks somewhere. What a task makes lies in the run's folder, not in what it answers."""

    @abstractmethod
    def settings(self) -> Settings:
        """The settings of the run, as the workers' own models say them."""

    @abstractmethod
    def map(self, tasks: Iterable[Task]) -> Iterator[TaskOutcome]:
        """Do every task; gives what became of each, or of parts of it, as it is finished, in any
        order.

        Tasks are taken as they can be done: an endless supply would be no harm. An error that a
        worker raises ends the iteration.
        """

    def close(self) -> None:  # noqa: B027
        """Give up what it holds."""


class InProcess(Executor):
    """One task after another, here."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def settings(self) -> Settings:
        return self._worker.bench.settings()

    def map(self, tasks: Iterable[Task]) -> Iterator[TaskOutcome]:
        for task in tasks:
            yield from self._worker.parts(task)
