"""Work that is done side by side, and what it asks for together."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from functools import partial

import pytest

from wordlight.backends.gathering import gather, meet

SAID: ContextVar[str] = ContextVar("said", default="")


class Adder:
    """Adds one to numbers, and keeps what it was asked at once."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __call__(self, numbers: list[int]) -> list[int]:
        self.calls.append(numbers)
        return [number + 1 for number in numbers]


def test_requests_of_one_kind_are_answered_together() -> None:
    adder = Adder()

    def work(start: int, rounds: int) -> int:
        for _ in range(rounds):
            start = meet("add", start, adder)
        return start

    found = gather([lambda: work(0, 3), lambda: work(10, 1), lambda: work(20, 2)])
    assert found == [3, 11, 22]
    assert adder.calls == [[0, 10, 20], [1, 21], [2]]


def test_other_kinds_are_answered_apart() -> None:
    adder = Adder()
    kinds = ["a", "b", "a", None]
    assert gather([partial(meet, kind, 0, adder) for kind in kinds]) == [1, 1, 1, 1]
    assert sorted(map(len, adder.calls)) == [1, 1, 2]


def test_alone_nothing_waits() -> None:
    adder = Adder()
    assert meet("add", 1, adder) == 2
    assert gather([lambda: meet("add", 5, adder)]) == [6]
    assert adder.calls == [[1], [5]]


def test_one_at_a_time_in_the_order_given() -> None:
    running, most, order = 0, 0, []

    def work(name: str) -> None:
        nonlocal running, most
        for step in range(3):
            running += 1
            most = max(most, running)
            order.append((step, name))
            running -= 1
            meet("wait", name, lambda names: names)

    gather([lambda: work("a"), lambda: work("b")])
    assert most == 1
    assert order == [(step, name) for step in range(3) for name in "ab"]


def test_an_error_is_of_the_work_that_raised_it() -> None:
    adder = Adder()

    def fails() -> int:
        meet("add", 0, adder)
        raise ValueError("no such word")

    first, second = gather([fails, lambda: meet("add", meet("add", 1, adder), adder)])
    assert isinstance(first, ValueError)
    assert second == 3


def test_an_error_of_what_is_asked_is_of_all_that_asked() -> None:
    def refuse(numbers: list[int]) -> list[int]:
        raise ValueError(f"not {numbers}")

    found = gather([lambda: meet("x", 1, refuse), lambda: meet("x", 2, refuse), lambda: 3])
    assert [str(one) for one in found] == ["not [1, 2]", "not [1, 2]", "3"]


def test_work_has_the_context_of_its_caller_and_changes_its_own() -> None:
    def work(name: str) -> tuple[str, str]:
        before = SAID.get()
        SAID.set(name)
        meet("wait", name, lambda names: names)
        return before, SAID.get()

    SAID.set("caller")
    assert gather([lambda: work("a"), lambda: work("b")]) == [("caller", "a"), ("caller", "b")]
    assert SAID.get() == "caller"


def test_an_interrupt_ends_all_work() -> None:
    def interrupted(names: list[str]) -> list[str]:
        raise KeyboardInterrupt

    ended: list[str] = []

    def work() -> None:
        try:
            meet("other", 0, lambda names: names)
            meet("more", 0, lambda names: names)
        finally:
            ended.append("work")

    with pytest.raises(KeyboardInterrupt):
        gather([lambda: meet("x", "a", interrupted), work])
    assert ended == ["work"]
    assert threading.active_count() == len(threading.enumerate())


def test_work_within_work_is_done_in_turn() -> None:
    adder = Adder()

    def outer(start: int) -> object:
        return gather([lambda: meet("add", start, adder), lambda: meet("add", 2 * start, adder)])

    assert gather([lambda: outer(1), lambda: outer(10)]) == [[2, 3], [11, 21]]
    assert adder.calls == [[1, 10], [2, 20]]
