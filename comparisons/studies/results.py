"""Results of studies, printed and written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from textwrap import fill
from typing import Any

from wordlight.backends.arrays_file import write_atomically
from wordlight.comparisons.stats.intervals import Estimate


def estimate_data(estimate: Estimate) -> dict[str, float | int | None]:
    """An estimate as plain data; what can't be had is null."""

    def known(value: float) -> float | None:
        return None if math.isnan(value) else value

    return {
        "mean": known(estimate.mean),
        "low": known(estimate.low),
        "high": known(estimate.high),
        "n": estimate.n,
    }


def estimate_text(estimate: Estimate, digits: int = 3) -> str:
    """``0.512 [0.480, 0.544]``, without the interval where there is none, ``-`` for nothing."""
    if math.isnan(estimate.mean):
        return "-"
    if math.isnan(estimate.low):
        return f"{estimate.mean:.{digits}f}"
    return f"{estimate.mean:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def notes(*texts: str) -> list[str]:
    """Return notes on a table, in lines that stay readable; empty ones are left out."""
    return [fill(text, 100, subsequent_indent="  ") for text in texts if text]


def write_study(folder: Path, name: str, data: dict[str, Any], text: str) -> None:
    """``NAME.json`` and ``NAME.txt`` in a folder, each by atomic rename."""
    numbers = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(folder / f"{name}.json", numbers.encode())
    write_atomically(folder / f"{name}.txt", (text + "\n").encode())
