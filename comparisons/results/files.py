"""Writes what a finished comparison leaves in its folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from wordlight.backends.arrays_file import write_atomically
from wordlight.comparisons.datasets import DatasetItem
from wordlight.comparisons.results.comparison import Comparison
from wordlight.comparisons.results.grid import GetMaps, draw_grid
from wordlight.comparisons.results.table import notes
from wordlight.comparisons.runs.image_words import Survey, write_words
from wordlight.comparisons.store.cells import Score, count_cells, write_results
from wordlight.comparisons.store.json_file import file_digest, write_json
from wordlight.comparisons.store.versions import installed_versions


def write_reports(
    comparison: Comparison,
    scores: Iterable[Sequence[Score]],
    surveys: Iterable[Survey],
    items: Iterable[DatasetItem],
    maps: GetMaps,
) -> None:
    """Everything that is made at the end of a run, each file by atomic rename.

    ``results.parquet`` (all scores of the test split), ``words.parquet`` (which word is of which
    kind, with its mask as a PNG), ``table.txt``, ``table.md``, ``table.csv`` (every estimate),
    ``table.tex``, ``grid.png`` (where there is a headline word to show) and, when all of these are
    there, ``summary.json``.

    Args:
        comparison: the results.
        scores: of the test split, a cell at a time.
        surveys: of its images.
        items: its images, of which the first few are shown.
        maps: gives the maps that are shown of them.
    """
    out = comparison.out
    write_results(out / "results.parquet", scores)
    write_words(out / "words.parquet", surveys)
    write_atomically(out / "table.txt", (comparison.text + "\n").encode())
    write_atomically(out / "table.md", comparison.markdown.encode())
    write_atomically(out / "table.csv", comparison.csv.encode())
    write_atomically(out / "table.tex", comparison.latex.encode())
    if comparison.facts.words:
        write_atomically(out / "grid.png", draw_grid(comparison, items, maps))
    # Last: with it a run is finished.
    digests = {name: file_digest(out / name) for name in ("results.parquet", "words.parquet")}
    write_json(out / "summary.json", {**_summary(comparison), "files": digests}, indent=2)


def _summary(comparison: Comparison) -> dict[str, Any]:
    facts = comparison.facts
    return {
        "headline": comparison.to_json(),
        "other": {k: [one.to_json() for one in of] for k, of in comparison.other.items()},
        "ceiling": {metric: estimate.mean for metric, estimate in comparison.ceiling.items()},
        "metrics": {metric.name: metric.facts() for metric in comparison.metrics},
        "tests": {name: list(map(asdict, tests)) for name, tests in comparison.tests.items()},
        "chosen": {
            name: {
                "threshold": None if c.thresholds is None else c.thresholds.normalised,
                "absolute_threshold": None if c.thresholds is None else c.thresholds.absolute,
                "calibration_miou": None if c.thresholds is None else c.miou,
                **c.variant.options,
            }
            for name, c in comparison.choices.items()
        },
        "kept": facts.accounting.kept,
        "dropped": facts.accounting.dropped,
        "calibration_kept": facts.calibration_accounting.kept,
        "calibration_dropped": facts.calibration_accounting.dropped,
        "steps": list(facts.steps),
        "sampling_steps": facts.sampling_steps,
        "budget": facts.budget,
        "methods": {row.name: row.settings() for row in comparison.table_rows},
        "rows": {
            row.name: {
                "label": row.label,
                "framework": row.framework,
                "family": row.family,
                "extra": row.extra,
                "shuffled": row.shuffled,
                "reference": row.reference,
                # Under which name the maps lie that its scores are of.
                "maps": comparison.choices[row.name].variant.cell,
            }
            for row in comparison.table_rows
        },
        "failed": [str(failure) for failure in comparison.failures],
        "notes": notes(comparison),
        "versions": installed_versions(),
        "n": facts.n,
        # Fewer than were planned where images were left out.
        "cells": count_cells(comparison.out),
        "seed": facts.seed,
    }
