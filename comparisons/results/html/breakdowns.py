"""The scores of a run by kind of word, by split and by word."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow.compute as pc

from wordlight.comparisons.datasets import OTHER_ROWS
from wordlight.comparisons.results.finished_run import HEADLINE, FinishedRun
from wordlight.comparisons.stats.intervals import SHARE, Estimate, mean_over_words

#: Words in the breakdown by word; of a data set with more, those that occur most often.
MOST_WORDS = 60


@dataclass(frozen=True)
class Line:
    """One line of a breakdown: a mean by method, ``n`` words at most."""

    name: str
    kind: str
    n: int
    means: dict[str, float]


def kind_name(kind: str) -> str:
    """Return a reader's name for a kind of word."""
    return "headline words" if kind == HEADLINE else OTHER_ROWS.get(kind, kind)


def by_split(run: FinishedRun) -> dict[str, dict[str, Estimate]]:
    """mIoU of the headline words by split and method, of the splits that were judged on.

    Intervals take the thresholds as they were chosen.
    """
    headline = run.scores.filter(pc.field("kind") == HEADLINE)
    found: dict[str, dict[str, Estimate]] = {}
    for split in sorted(set(headline.column("split").to_pylist())):
        of_split = headline.filter(pc.field("split") == split)
        found[split] = {}
        for row in run.rows:
            own = of_split.filter(pc.field("method") == row.name)
            samples, values = own.column("sample").to_pylist(), own.column("value").to_pylist()
            found[split][row.name] = mean_over_words(samples, values, bounds=SHARE)
    return found


def by_word(run: FinishedRun) -> tuple[list[Line], int]:
    """Means by word and kind of word, the most frequent first; and how many were left out."""
    lower = run.scores.set_column(
        run.scores.schema.get_field_index("word"), "word", pc.utf8_lower(run.scores.column("word"))
    )
    grouped = lower.group_by(["kind", "word", "method"]).aggregate(
        [("value", "mean"), ("value", "count")]
    )
    lines: dict[tuple[str, str], dict[str, float]] = {}
    counts: dict[tuple[str, str], int] = {}
    for one in grouped.to_pylist():
        key = (one["kind"], one["word"])
        lines.setdefault(key, {})[one["method"]] = one["value_mean"]
        counts[key] = max(counts.get(key, 0), one["value_count"])
    kinds = [HEADLINE, *OTHER_ROWS]

    def place(key: tuple[str, str]) -> tuple[int, int, str]:
        kind, word = key
        return kinds.index(kind) if kind in kinds else len(kinds), -counts[key], word

    frequent = sorted(lines, key=lambda key: (-counts[key], key))[:MOST_WORDS]
    shown = [
        Line(word, kind, counts[kind, word], lines[kind, word])
        for kind, word in sorted(frequent, key=place)
    ]
    return shown, len(lines) - len(shown)
