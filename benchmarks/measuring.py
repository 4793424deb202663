"""What benchmarks share: rounds in which all that is compared is timed, and a report."""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def seconds_of(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds of a call that has nothing left to wait for when it ends."""
    started = clock()
    work()
    return clock() - started


def rounds_of(
    works: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    within: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return the seconds of each work in each round, after one that isn't counted.

    Args:
        within: seconds of the wall after which no further round begins; one there always is.
        clock: of the seconds: the wall's, or the CPU's.
    """
    until = time.perf_counter() + within
    for work in works.values():
        work()
    order = random.Random(0)
    found: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        if number and time.perf_counter() > until:
            break
        for name in order.sample(list(works), k=len(works)):
            found[name].append(seconds_of(works[name], clock))
    return found


def spread(values: list[float], digits: int = 3) -> list[str]:
    """Median, lowest and highest."""
    return [f"{one:.{digits}f}" for one in (statistics.median(values), min(values), max(values))]


def add_rounds(parser: argparse.ArgumentParser, rounds: int) -> None:
    """Add the options ``--rounds`` and ``--within``."""
    parser.add_argument("--rounds", type=int, default=rounds, help=f"({rounds})")
    parser.add_argument(
        "--within",
        type=float,
        default=math.inf,
        metavar="SECONDS",
        help="after which no further round of a comparison begins",
    )


class Report:
    """Values by name, printed as soon as they are known, or as one JSON object at the end."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._told: dict[str, Any] = {}

    def tell(self, name: str, value: Any) -> None:
        """Take a value, or several by name."""
        self._told[name] = value
        if self._as_json:
            return
        several = value if isinstance(value, dict) else {}
        print(f"  {name:32} {'' if several else value}".rstrip(), flush=True)
        for inner, number in several.items():
            print(f"    {inner:46} {number}", flush=True)

    def end(self) -> None:
        if self._as_json:
            print(json.dumps(self._told))
