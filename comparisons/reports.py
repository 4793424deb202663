"""Writes what a finished comparison leaves in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from wordlight.backends.arrays_file import write_atomically
from wordlight.comparisons.cells import CellFolder, Score, write_scores
from wordlight.comparisons.comparison import Comparison
from wordlight.comparisons.datasets import DatasetItem, Mask
from wordlight.comparisons.grid import draw_grid
from wordlight.comparisons.table import notes
from wordlight.comparisons.versions import installed_versions


def write_reports(
    comparison: Comparison,
    scores: Mapping[str, Sequence[Score]],
    items: Sequence[DatasetItem],
    cells: CellFolder,
) -> None:
    """Everything that is made at the end of a run, each file by atomic rename.

    ``results.parquet`` (all scores of the test split), ``words.parquet`` (which word is of which
    kind, with its mask as a PNG), ``summary.json``, ``table.txt``, ``table.md``, ``table.csv``
    (every estimate), ``table.tex`` and ``grid.png``.
    """
    out = comparison.out
    write_scores(out / "results.parquet", [s for of_method in scores.values() for s in of_method])
    write_atomically(out / "words.parquet", _words(items))
    summary = json.dumps(_summary(comparison), indent=2) + "\n"
    write_atomically(out / "summary.json", summary.encode())
    write_atomically(out / "table.txt", (comparison.text + "\n").encode())
    write_atomically(out / "table.md", comparison.markdown.encode())
    write_atomically(out / "table.csv", comparison.csv.encode())
    write_atomically(out / "table.tex", comparison.latex.encode())
    write_atomically(out / "grid.png", draw_grid(comparison, items, cells))


def _words(items: Sequence[DatasetItem]) -> bytes:
    rows = [
        {
            "sample": item.sample,
            "split": item.split,
            "prompt": item.trajectory.prompt,
            "word": scored.word.text,
            "occurrence": scored.word.occurrence,
            "start": scored.word.start,
            "stop": scored.word.stop,
            "kind": scored.row,
            "mask_share": float(scored.mask.mean()),
            "mask": _png(scored.mask),
        }
        for item in items
        for scored in item.words
    ]
    buffer = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def _png(mask: Mask) -> bytes:
    buffer = BytesIO()
    Image.fromarray(mask).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _summary(comparison: Comparison) -> dict[str, Any]:
    facts = comparison.facts
    return {
        "headline": comparison.to_json(),
        "other": {k: [row.to_json() for row in rows] for k, rows in comparison.other.items()},
        "ceiling": {metric: estimate.mean for metric, estimate in comparison.ceiling.items()},
        "tests": [asdict(test) for test in comparison.tests],
        "chosen": {
            name: {
                "threshold": c.threshold,
                "absolute_threshold": c.thresholds.absolute,
                "calibration_miou": c.miou,
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
        "methods": {entry.name: entry.settings() for entry in comparison.entries},
        "rows": {
            entry.name: {
                "label": entry.label,
                "family": entry.family,
                "extra": entry.extra,
                "shuffled": entry.shuffled,
                # Under which name the maps lie that its scores are of.
                "maps": comparison.choices[entry.name].variant.cell,
            }
            for entry in comparison.entries
        },
        "notes": notes(comparison),
        "versions": installed_versions(),
        "n": facts.n,
        "seed": facts.seed,
    }
