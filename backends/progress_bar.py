"""A progress bar on stderr: live in a terminal or a notebook, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import ClassVar, Generic, Protocol, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Item = TypeVar("Item")
#: Seconds between two lines of a log.
EVERY = 10.0
#: Columns of a terminal below which there is room for text alone.
_NARROW = 70


class ProgressBar(Generic[Item]):
    """A bar, or lines, of how much of some work is done.

    A context manager; with ``iterable`` also an iterator over its items, which counts them. Where
    stderr is a terminal, or in a notebook, it is drawn in place and fits the width; elsewhere a
    line is printed every ten seconds, and one at the end.

    Args:
        iterable: the items to go through.
        desc: the work in words, such as ``"drawing images"``.
        total: of how much; the length of ``iterable`` where it has one, else unknown.
        unit: the plural of what is counted, such as ``"images"``.
        initial: the amount done before.
        disable: show nothing.
    """

    def __init__(
        self,
        iterable: Iterable[Item] | None = None,
        *,
        desc: str = "",
        total: int | None = None,
        unit: str = "",
        initial: int = 0,
        disable: bool = False,
    ) -> None:
        self._items: Iterable[Item] = () if iterable is None else iterable
        self.total = len(iterable) if total is None and isinstance(iterable, Sized) else total
        self.desc, self.unit, self.n, self.note = desc or unit, unit, initial, ""
        self._shown: _Shown | None = None if disable else _shown(self)

    def update(self, n: int = 1) -> None:
        """Count ``n`` more as done."""
        self.n += n
        self._show()

    def say(self, note: str) -> None:
        """Show a remark behind the numbers, such as how many failed."""
        self.note = note
        self._show()

    def close(self) -> None:
        """End the bar; it stays as it is."""
        if self._shown is not None:
            self._shown.end(self)
            self._shown = None

    def _show(self) -> None:
        if self._shown is not None:
            self._shown.show(self)

    def __iter__(self) -> Iterator[Item]:
        with self:
            for item in self._items:
                yield item
                self.update()

    def __enter__(self) -> ProgressBar[Item]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Shown(Protocol):
    def show(self, bar: ProgressBar[Item]) -> None: ...

    def end(self, bar: ProgressBar[Item]) -> None: ...


def _shown(bar: ProgressBar[Item]) -> _Shown | None:
    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        return _Lines(bar)
    # A bar inside another one would be drawn over it.
    return None if _Live.is_drawn else _Live(bar, console)


class _Live:
    """Drawn in place, by rich; one at a time."""

    is_drawn: ClassVar[bool] = False

    def __init__(self, bar: ProgressBar[Item], console: Console) -> None:
        columns: list[ProgressColumn] = [TextColumn("{task.description}")]
        if bar.total is None:
            columns += [SpinnerColumn(), TextColumn("{task.completed:.0f}"), TimeElapsedColumn()]
        elif console.width < _NARROW:
            columns += [MofNCompleteColumn(), TextColumn("{task.fields[note]}")]
        else:
            columns += [
                BarColumn(30),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            ]
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task(
            bar.desc, total=bar.total, completed=bar.n, note=bar.note
        )
        self._progress.start()
        _Live.is_drawn = True

    def show(self, bar: ProgressBar[Item]) -> None:
        self._progress.update(self._task, completed=bar.n, total=bar.total, note=bar.note)

    def end(self, bar: ProgressBar[Item]) -> None:
        self.show(bar)
        self._progress.stop()
        _Live.is_drawn = False


class _Lines:
    """A line every ``EVERY`` seconds, and one at the end."""

    def __init__(self, bar: ProgressBar[Item]) -> None:
        self._began = time.monotonic()
        self._next = self._began + EVERY
        self._initial = bar.n

    def show(self, bar: ProgressBar[Item]) -> None:
        # The last one is the end's.
        if bar.n != bar.total and time.monotonic() >= self._next:
            self._print(bar, self._left(bar))
            self._next = time.monotonic() + EVERY

    def end(self, bar: ProgressBar[Item]) -> None:
        self._print(bar, "")

    def _print(self, bar: ProgressBar[Item], left: str) -> None:
        amount = f"{bar.n} of {bar.total}" if bar.total is not None else str(bar.n)
        unit = bar.unit.removesuffix("s") if amount == "1" else bar.unit
        counted = amount if unit == "" or bar.unit == bar.desc else f"{amount} {unit}"
        parts = [counted, _duration(time.monotonic() - self._began), left, bar.note]
        print(f"{bar.desc}: {', '.join(filter(None, parts))}", file=sys.stderr, flush=True)

    def _left(self, bar: ProgressBar[Item]) -> str:
        done = bar.n - self._initial
        if bar.total is None or done <= 0:
            return ""
        pace = (time.monotonic() - self._began) / done
        return f"about {_duration(max(0, bar.total - bar.n) * pace)} left"


def _duration(seconds: float) -> str:
    """A time as a person says it.

    >>> _duration(3.2), _duration(75), _duration(7300)
    ('3 s', '1 min 15 s', '2 h 1 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
