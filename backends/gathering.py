"""Work on several images side by side: where all of them wait for the model, one pass serves them.

Each piece of work runs in a thread of its own, and never two at a time. It goes on until it calls
``meet``; when every one waits there or has ended, what they asked for is done, requests of one kind
together, and they go on. So code that is written for one image shares its passes with others.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

Asked = TypeVar("Asked")
Made = TypeVar("Made")
#: Makes the block in which a thread has the settings of another.
ThreadSettings = Callable[[], AbstractContextManager[None]]


class _StoppedError(BaseException):
    """Ends a piece of work whose caller was interrupted."""


@dataclass
class _Request:
    """A request that a piece of work waits for; one call can answer all of one kind."""

    kind: Hashable
    asked: Any
    answer_all: Callable[[list[Any]], Sequence[Any]]
    answer: Any = None
    error: BaseException | None = None
    trace: TracebackType | None = None
    answered: bool = False


class _Work(threading.Thread, Generic[Made]):
    """A piece of work in a thread, which goes on only while its caller waits for it."""

    def __init__(self, work: Callable[[], Made], settings: ThreadSettings) -> None:
        super().__init__(daemon=True)
        self.request: _Request | None = None
        self.made: Made | None = None
        self.error: BaseException | None = None
        self.stopped = False
        self._work, self._settings = work, settings
        self._context = contextvars.copy_context()
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._together: list[_Request] = []

    def run(self) -> None:
        """Do the work; called by ``start``."""
        self._turn.acquire()
        try:
            if not self.stopped:
                self._context.run(_current.set, self)
                self.made = self._context.run(self._do)
        except BaseException as error:
            self.error = error
        self.request = None
        self._back.release()

    def _do(self) -> Made:
        with self._settings():
            return self._work()

    def go_on(self, together: Sequence[_Request] = ()) -> None:
        """Let it answer these requests first, its own among them, and work on until it waits or
        has ended."""
        self._together = list(together)
        self._turn.release()
        self._back.acquire()

    def stop(self) -> None:
        """End it where it waits."""
        self.stopped = True
        self._turn.release()

    def wait_for(self, request: _Request) -> Any:
        """Wait, in this thread, until a request is answered."""
        self.request = request
        while not request.answered:
            self._back.release()
            self._turn.acquire()
            if self.stopped:
                raise _StoppedError
            if self._together:
                _answer(self._together)
        self.request = None
        if request.error is not None:
            # Several raise it: none of them shows where the others did.
            raise request.error.with_traceback(request.trace)
        return request.answer


#: The piece of work that this context is of.
_current: ContextVar[_Work[Any] | None] = ContextVar("work", default=None)


def meet(
    kind: Hashable | None, asked: Asked, answer_all: Callable[[list[Asked]], Sequence[Made]]
) -> Made:
    """Return the answer to what is asked, which may be found together with others'.

    Args:
        kind: requests of one kind are answered together; None for one that is answered alone.
        asked: the request.
        answer_all: gives the answers to a list of requests of this kind, in their order. It runs
            in the thread of one of them, and what it raises is raised in all of them.
    """
    work = _current.get()
    if work is None or kind is None:
        (made,) = answer_all([asked])
        return made
    answer: Made = work.wait_for(_Request(kind, asked, answer_all))
    return answer


def gather(
    works: Sequence[Callable[[], Made]], settings: ThreadSettings = nullcontext
) -> list[Made | Exception]:
    """Do several pieces of work side by side; what one of them raised stands in its place.

    What is no ``Exception``, such as an interrupt, ends all of them.

    Args:
        works: the pieces of work.
        settings: gives the block in which each thread works, such as what
            ``Backend.settings_of_thread`` returns: what frameworks keep by thread is of the
            caller's. Context variables are the caller's in any case.
    """
    if len(works) == 1 or _current.get() is not None:
        return [_attempt(work) for work in works]
    threads = [_Work(work, settings) for work in works]
    for one in threads:
        one.start()
    try:
        for one in threads:
            one.go_on()
        while waiting := [one for one in threads if one.request is not None]:
            kinds: dict[Hashable, list[_Work[Made]]] = {}
            for one in waiting:
                assert one.request is not None
                kinds.setdefault(one.request.kind, []).append(one)
            for alike in kinds.values():
                first, *others = alike
                first.go_on([one.request for one in alike if one.request is not None])
                for one in others:
                    one.go_on()
    finally:
        for one in threads:
            one.stop()
        for one in threads:
            one.join()
    return [_result(one) for one in threads]


def _attempt(work: Callable[[], Made]) -> Made | Exception:
    try:
        return work()
    except Exception as error:
        return error


def _result(work: _Work[Any]) -> Any:
    if work.error is None:
        return work.made
    if isinstance(work.error, Exception):
        return work.error
    raise work.error


def _answer(requests: Sequence[_Request]) -> None:
    try:
        answers = requests[0].answer_all([one.asked for one in requests])
    except BaseException as error:
        for one in requests:
            one.error, one.trace = error, error.__traceback__
    else:
        for one, answer in zip(requests, answers, strict=True):
            one.answer = answer
    for one in requests:
        one.answered = True
