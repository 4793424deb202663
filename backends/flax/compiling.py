"""What JAX compiles: kept on disk for the next process, and timed, since a first call's seconds
aren't a method's."""

from __future__ import annotations

import os
import threading
from functools import cache
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

#: In the environment, set to 0 it has no programs kept.
SWITCH = "WORDLIGHT_JAX_CACHE"

#: What JAX says of tracing, lowering and compiling a program; stretches may lie inside others.
_COMPILING = "/jax/core/compile/"


def keep_programs() -> Path | None:
    """Have JAX keep what it compiles in ``$XDG_CACHE_HOME/wordlight/jax`` (or in ``~/.cache``), for
    other processes too; gives the folder that is in use.

    A folder that was chosen already stays (``JAX_COMPILATION_CACHE_DIR``). With
    ``WORDLIGHT_JAX_CACHE=0``, or where that folder can't be made, nothing is kept, None is given.
    """
    chosen: str | None = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if chosen is None and os.environ.get(SWITCH) != "0":
        home = os.environ.get("XDG_CACHE_HOME")
        folder = (Path(home) if home else Path.home() / ".cache") / "wordlight" / "jax"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return None
        chosen = str(folder)
        jax.config.update("jax_compilation_cache_dir", chosen)  # type: ignore[no-untyped-call]
        # JAX looks once whether there is a folder.
        compilation_cache.reset_cache()
    return None if chosen is None else Path(chosen)


class CompilingClock:
    """Adds up the stretches of time in which something was compiled, each moment once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = 0.0
        # The latest stretches, which one that ends later may hold.
        self._open: list[tuple[float, float]] = []

    def note(self, event: str, start_time: float, end_time: float, **_about: str | int) -> None:
        """Take a stretch that has ended, as ``jax.monitoring`` tells it."""
        if not event.startswith(_COMPILING):
            return
        with self._lock:
            inside = [one for one in self._open if one[0] >= start_time]
            self._total += (end_time - start_time) - sum(b - a for a, b in inside)
            self._open = [one for one in self._open if one[0] < start_time]
            self._open.append((start_time, end_time))
            # What ended before can't be inside a stretch that begins after it.
            self._open = self._open[-1000:]

    @property
    def seconds(self) -> float:
        """The whole time so far."""
        return self._total


@cache
def compiling_clock() -> CompilingClock:
    """The process's clock, which begins when it is first asked for."""
    clock = CompilingClock()
    jax.monitoring.register_event_time_span_listener(clock.note)
    return clock
