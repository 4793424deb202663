"""Metrics of an image's cost, and of what was saved on it: denoiser evaluations, seconds, peak
memory, completeness error; means are over images."""

from __future__ import annotations

import math

from wordlight.attribution.maps import Provenance
from wordlight.comparisons.metrics.metric import HEADLINE_TABLE, Metric
from wordlight.comparisons.store.cells import (
    COMPLETENESS,
    FORWARD_EQUIVALENTS,
    PEAK_BYTES,
    SECONDS,
)


def forward_equivalents(spent: Provenance) -> float | None:
    """Rows of the denoiser: a forward pass counts 1, a forward-mode product 2, a reverse one 3;
    None of maps from elsewhere that don't say what they cost."""
    return float(spent.forward_equivalents) if _is_known(spent) else None


def seconds(spent: Provenance) -> float | None:
    """Wall-clock seconds; None of maps from elsewhere that don't say what they cost."""
    return float(spent.seconds) if _is_known(spent) else None


def peak_bytes(spent: Provenance) -> float | None:
    """The device's memory at its fullest, the model's own included; None where the device doesn't
    tell, as no CPU does."""
    return None if spent.peak_bytes is None else float(spent.peak_bytes)


def completeness_error(spent: Provenance) -> float | None:
    """How much of the target maps miss or exceed that share it out, as a share of it; None of maps
    that share nothing out. Few nodes, samples or orders leave more."""
    return spent.completeness_error


def _is_known(spent: Provenance) -> bool:
    return bool(spent.forward_equivalents or spent.seconds)


#: They stand beside every score.
METRICS = tuple(
    Metric(
        name=name,
        score=score,
        over="cost",
        label=label,
        higher_is_better=False,
        digits=digits,
        unit=unit,
        needs=frozenset(),
        most=math.inf,
        groups=("cost",),
        table=HEADLINE_TABLE,
    )
    for name, score, label, digits, unit in (
        (FORWARD_EQUIVALENTS, forward_equivalents, "forward-eq.", 1, 1.0),
        (SECONDS, seconds, "seconds", 2, 1.0),
        (PEAK_BYTES, peak_bytes, "peak MiB", 1, 2.0**20),
        (COMPLETENESS, completeness_error, "completeness error %", 1, 0.01),
    )
)
