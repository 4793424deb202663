"""Who does what: back-pressure, and what becomes of a lost worker's tasks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wordlight.comparisons.runs.executors.dispatch import AHEAD, TRIES, Dispatch


class Counted:
    """An endless supply of tasks that says how many were taken."""

    def __init__(self):
        self.taken = 0

    def __iter__(self):
        while True:
            self.taken += 1
            yield f"task-{self.taken}"


def test_tasks_are_taken_only_as_there_is_room():
    supply = Counted()
    dispatch = Dispatch(supply)
    for worker in "ab":
        dispatch.add(worker)
    handed = list(dispatch.assign())
    assert len(handed) == supply.taken == 2 * AHEAD
    # Each has one before anybody has two.
    assert [worker for worker, _ in handed[:2]] == ["a", "b"]
    dispatch.finished(*handed[0])
    assert list(dispatch.assign()) == [("a", "task-5")]
    assert supply.taken == 2 * AHEAD + 1


def test_a_lost_workers_tasks_are_done_first_by_others():
    dispatch = Dispatch(["1", "2", "3", "4", "5"])
    dispatch.add("a")
    dispatch.add("b")
    assert dispatch.workers == 2
    held = [task for worker, task in dispatch.assign() if worker == "a"]
    assert dispatch.worker_lost("a") is None
    dispatch.add("c")
    assert [task for _, task in dispatch.assign()] == held


def test_a_task_that_loses_its_worker_again_and_again_is_given_up():
    dispatch = Dispatch(["kills", "harmless"])
    for trial in range(TRIES):
        dispatch.add(trial)
        assert [task for _, task in dispatch.assign()] == ["kills", "harmless"]
        assert dispatch.worker_lost(trial) == (None if trial < TRIES - 1 else "kills")
    dispatch.add("last")
    assert [task for _, task in dispatch.assign()] == ["harmless"]
    dispatch.finished("last", "harmless")
    assert not any(dispatch._held.values())
    dispatch.retry("kills")
    assert list(dispatch.assign()) == [("last", "kills")]


@given(st.integers(0, 30), st.integers(1, 4), st.lists(st.integers(0, 9), max_size=60))
def test_every_task_is_done_exactly_once_whoever_is_lost(count, workers, fates):
    tasks = list(range(count))
    # As often as workers can be lost here, nothing is given up.
    dispatch = Dispatch(tasks, tries=len(fates) + 1)
    alive = list(range(workers))
    for worker in alive:
        dispatch.add(worker)
    running, done, fates = [], [], iter(fates)
    while True:
        running += dispatch.assign()
        if not running:
            break
        worker, task = running[0]
        if next(fates, 5) < 3:
            running = [one for one in running if one[0] != worker]
            assert dispatch.worker_lost(worker) is None
            alive.append(len(alive))
            dispatch.add(alive[-1])
        else:
            running.pop(0)
            dispatch.finished(worker, task)
            done.append(task)
    assert sorted(done) == tasks
    assert not any(dispatch._held.values())
