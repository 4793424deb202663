"""Batches of the denoiser's passes in parts, where they are more than a device's memory holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from array_api_compat import array_namespace

Made = TypeVar("Made")


class BatchLimits:
    """The rows that fit into one pass, by kind of pass: halved whenever memory runs out.

    A limit that was found holds from then on, so that memory runs out once and not at every step.

    Args:
        is_out_of_memory: whether an exception says that memory ran out.
        release: gives back what a failed pass held.

    Attributes:
        halvings: the number of times memory ran out and a batch was halved.
    """

    def __init__(
        self, is_out_of_memory: Callable[[Exception], bool], release: Callable[[], None]
    ) -> None:
        self._is_out_of_memory, self._release = is_out_of_memory, release
        self._most: dict[str, int] = {}
        self.halvings = 0

    def parts(self, kind: str, n_rows: int, most: int, run: Callable[[slice], Made]) -> list[Made]:
        """Return what ``run`` makes of the parts of ``n_rows`` rows, in their order.

        Args:
            kind: of pass; each has a limit of its own.
            n_rows: of the whole batch.
            most: rows of a part, as far as memory allows.
            run: called with the rows of a part; again with fewer where memory runs out.

        Raises whatever ``run`` does, memory running out for a single row included.
        """
        made: list[Made] = []
        start = 0
        while start < n_rows:
            at_once = min(most, n_rows - start, self._most.get(kind, n_rows))
            try:
                made.append(run(slice(start, start + at_once)))
            except Exception as error:
                if at_once == 1 or not self._is_out_of_memory(error):
                    raise
                self._most[kind] = at_once // 2
                self.halvings += 1
            else:
                start += at_once
                continue
            # After the except block: until then the exception holds the pass's arrays.
            self._release()
        return made


def join_rows(parts: Sequence[Any]) -> Any:
    """Return the parts of a batch as one array."""
    return parts[0] if len(parts) == 1 else array_namespace(parts[0]).concat(parts, axis=0)


def filled_up(rows: Any, n_rows: int) -> Any:
    """Return rows with zeros behind them, ``n_rows`` together."""
    if rows.shape[0] == n_rows:
        return rows
    xp = array_namespace(rows)
    nothing = xp.zeros_like(rows[:1])
    lacking = xp.broadcast_to(nothing, (n_rows - rows.shape[0], *rows.shape[1:]))
    return xp.concat([rows, lacking], axis=0)
