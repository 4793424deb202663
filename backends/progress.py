"""Progress of long work, told to whoever listens in the same thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

#: What is done, how much of it, and of how much; the last is None where nobody knows.
Listener: TypeAlias = Callable[[str, int, int | None], None]

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call ``listener`` with the progress of sampling and attributing inside the block.

    What it raises ends that work: so a job is cancelled.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(what: str, done: int, total: int | None) -> None:
    """Tell the listener, if there is one, how far ``what`` is."""
    listener = _listener.get()
    if listener is not None:
        listener(what, done, total)
