"""The tables of a comparison: for a terminal, in Markdown, LaTeX and CSV."""

from __future__ import annotations

import math
from collections import Counter
from textwrap import fill
from typing import Any

from wordlight.comparisons.datasets import OTHER_ROWS
from wordlight.comparisons.metrics.registry import (
    ABSOLUTE,
    ARGMAX,
    AUROC,
    AVERAGE_PRECISION,
    BEST,
    ENERGY,
    MATCHED,
    POINTING_GAME,
)
from wordlight.comparisons.results.comparison import Comparison
from wordlight.comparisons.results.text_tables import (
    Lines,
    aligned,
    comma_separated,
    piped,
    tabular,
)
from wordlight.comparisons.rows.budget import effort_of
from wordlight.comparisons.rows.entries import Entry
from wordlight.comparisons.stats.intervals import Estimate
from wordlight.comparisons.stats.paired_tests import ALPHA, Standing
from wordlight.comparisons.store.cells import FORWARD_EQUIVALENTS, PEAK_BYTES, SECONDS

#: No value: nothing was scored, or maps from elsewhere don't say what they cost.
NONE = "-"
NOT_MEASURED = "not measured"
#: Of the lines around the table.
_WIDTH = 104

#: Metrics of the second table, and how it calls them.
_MORE = {
    "miou@0.3": "mIoU@0.3",
    "miou@0.5": "mIoU@0.5",
    "miou@max-0.4": "mIoU@0.4 max",
    ABSOLUTE: "mIoU@abs",
    ARGMAX: "argmax mIoU",
    MATCHED: "matched mIoU",
    AUROC: "AUROC",
    ENERGY: "EBPG",
}


def plain(comparison: Comparison) -> str:
    """Aligned columns, with what must be known about them below."""
    extra = sum(entry.extra for entry in comparison.entries)
    parts = [fill(_title(comparison), _WIDTH), "", aligned(headline(comparison), extra), ""]
    for heading, lines in _further(comparison):
        parts += [f"{heading}:", "", aligned(lines, extra), ""]
    parts += [fill(note, _WIDTH, subsequent_indent="  ") for note in notes(comparison)]
    return "\n".join(parts)


def markdown(comparison: Comparison) -> str:
    """The same, as Markdown."""
    parts = [f"**{_title(comparison)}**", "", piped(headline(comparison)), ""]
    for heading, lines in _further(comparison):
        parts += [f"{heading}:", "", piped(lines), ""]
    return "\n".join([*parts, *(f"- {note}" for note in notes(comparison))]) + "\n"


def latex(comparison: Comparison) -> str:
    """The same, as LaTeX tables with booktabs; the notes are comments."""
    extra = sum(entry.extra for entry in comparison.entries)
    parts = [tabular(headline(comparison), _title(comparison), extra)]
    parts += [tabular(lines, heading, extra) for heading, lines in _further(comparison)]
    remarks = [f"% {line}" for note in notes(comparison) for line in note.splitlines()]
    return "\n".join([*parts, *remarks]) + "\n"


def csv(comparison: Comparison) -> str:
    """Every estimate, a line each: the headline's and those by kind of other words."""
    labels = {entry.name: entry.label for entry in comparison.entries}
    lines = [["words", "label", *comparison.rows[0].to_json()]]
    kinds = {"headline": comparison.rows, **comparison.other}
    for kind, rows in kinds.items():
        for row in rows:
            lines.append([kind, labels[row.method], *row.to_json().values()])
    return comma_separated(lines)


def _further(comparison: Comparison) -> list[tuple[str, Lines]]:
    return [
        ("Other metrics of the same words", more_metrics(comparison)),
        *(
            [("mIoU@best of other words, at the same thresholds", others(comparison))]
            if any(comparison.other_ceiling[kind].n for kind in OTHER_ROWS)
            else []
        ),
    ]


def more_metrics(comparison: Comparison) -> Lines:
    """Header and one line a method: the metrics that the headline has no room for."""
    lines = [["method", *_MORE.values()]]
    for entry in _ranked(comparison):
        means = [comparison.estimate(entry.name, metric).mean for metric in _MORE]
        lines.append([entry.label, *map(_number, means)])
    return lines


def headline(comparison: Comparison) -> Lines:
    """Header and one line a method, best first; rows of other step sets come after the rest."""
    peak = _tells_peak(comparison)
    lines = [
        [
            "method",
            "mIoU@best [95 %]",
            "rank (group)",
            "mIoU@0.4",
            "pointing game [95 %]",
            "AP",
            "forward-eq.",
            "seconds",
            *(["peak MiB"] if peak else []),
        ]
    ]
    for entry in _ranked(comparison):

        def get(metric: str, name: str = entry.name) -> Estimate:
            return comparison.estimate(name, metric)

        lines.append(
            [
                entry.label,
                _with_interval(get(BEST)),
                _place(comparison.standing(entry.name)),
                _number(get("miou@0.4").mean),
                _with_interval(get(POINTING_GAME)),
                _number(get(AVERAGE_PRECISION).mean),
                _number(get(FORWARD_EQUIVALENTS).mean, 1),
                _number(get(SECONDS).mean, 2),
                *([_number(get(PEAK_BYTES).mean / 2**20, 1)] if peak else []),
            ]
        )
    last = len(lines) - sum(entry.extra for entry in comparison.entries)
    blank = [NONE] * (len(lines[0]) - 2)
    lines[last:last] = [[name, NOT_MEASURED, *blank] for name, _ in comparison.facts.not_measured]
    return lines


def others(comparison: Comparison) -> Lines:
    """Header and one line a method: mIoU at the chosen threshold by kind of other words."""
    kinds = [kind for kind in OTHER_ROWS if comparison.other_ceiling[kind].n]
    lines = [
        ["method", *(f"{OTHER_ROWS[k]} ({comparison.other_ceiling[k].n})" for k in kinds)],
    ]
    for entry in _ranked(comparison):
        of_entry = [
            next(row.estimate for row in comparison.other[kind] if row.method == entry.name)
            for kind in kinds
        ]
        lines.append([entry.label, *(_number(e.mean) for e in of_entry)])
    return lines


def notes(comparison: Comparison) -> list[str]:
    """What must be known about the numbers, a line each."""
    facts = comparison.facts
    ceiling = comparison.ceiling
    kept, dropped = facts.accounting.kept, facts.accounting.dropped
    by_kind = ", ".join(
        f"{name.replace('-', ' ')} {kept[name]} of {kept[name] + dropped[name]}" for name in kept
    )
    others = ", ".join(
        f"{OTHER_ROWS[kind]} {_number(one.mean)}"
        for kind, one in comparison.other_ceiling.items()
        if one.n
    )
    steps = ", ".join(str(step) for step in facts.steps)
    lines = [
        f"words kept {sum(kept.values())}, dropped {sum(dropped.values())} "
        f"(the drawn image shows no such thing); kept by kind: {by_kind}",
        f"ceiling (the true mask reduced to the latent grid and back): mIoU@best "
        f"{_number(ceiling[BEST].mean)}, mIoU@0.4 {_number(ceiling['miou@0.4'].mean)}, pointing "
        f"game {_number(ceiling[POINTING_GAME].mean)}, AP "
        f"{_number(ceiling[AVERAGE_PRECISION].mean)}"
        + (f"; mIoU@best of {others}" if others else ""),
        f"thresholds, chosen on {facts.calibration} calibration images: {_chosen(comparison)}, "
        f"ceiling {comparison.ceiling_threshold:g}",
        f"steps {steps} of {facts.sampling_steps}, counted from 0"
        + (", but for rows that say otherwise" if any(e.extra for e in comparison.entries) else ""),
        "mIoU@0.4 max: cut at a share of the map's maximum; mIoU@abs: at a value of the map as it "
        "is, chosen like the threshold; argmax: a pixel goes to the word that is highest there; "
        "matched: objects and maps matched one to one, whichever word it is",
        "intervals: bootstrap over images; forward-eq. and seconds are a mean image's, all words"
        + (
            "; peak memory is the device's, the model included"
            if _tells_peak(comparison)
            else f"; {facts.device} doesn't tell its peak memory"
        ),
    ]
    if len(facts.frameworks) > 1:
        lines.append(
            f"maps by {' and '.join(facts.frameworks)}, of the same images, sampled by "
            f"{facts.framework}"
        )
    if comparison.failures:
        lines.append(_failed(comparison))
    if comparison.tests:
        lines.append(_told_apart(comparison))
    lines += [f"{name}: {NOT_MEASURED}: {why}" for name, why in facts.not_measured]
    if facts.budget is not None:
        lines.append(_budget(comparison, facts.budget))
    if not any(entry.family == "control" for entry in comparison.entries):
        lines.append(
            "no controls were asked for: these numbers don't say whether a method beats a centre "
            "prior or another word's map"
        )
    short = [
        f"{entry.label} {comparison.estimate(entry.name).n}"
        for entry in comparison.entries
        if comparison.estimate(entry.name).n != ceiling[BEST].n
    ]
    if short:
        lines.append(
            f"headline words scored, where fewer than {ceiling[BEST].n} (no other object to take "
            f"the map of{', or failed cells' if comparison.failures else ''}): {', '.join(short)}"
        )
    return lines


def _failed(comparison: Comparison) -> str:
    labels: dict[tuple[str, str], str] = {}
    for entry in comparison.entries:
        names = [entry.name, *(variant.cell for variant in entry.variants if not entry.shuffled)]
        labels |= {(entry.framework, name): entry.label for name in names}
    counts = Counter(
        labels.get((one.framework, one.method), one.method) for one in comparison.failures
    )
    lost = f"; nothing was left of {', '.join(comparison.lost)}" if comparison.lost else ""
    return (
        f"{len(comparison.failures)} cells failed, whose images are left out of their rows: "
        f"{', '.join(f'{label} {count}' for label, count in counts.items())}{lost}; "
        "the same command tries them again"
    )


def _tells_peak(comparison: Comparison) -> bool:
    return any(row.metric == PEAK_BYTES for row in comparison.rows)


def _told_apart(comparison: Comparison) -> str:
    tests = comparison.tests
    images = max(test.images for test in tests)
    line = (
        "rows that share a group's letter are tied: their mIoU@best can't be told apart (paired "
        f"sign-flip permutation tests over {_count(images, 'image')}, Holm's correction over "
        f"{_count(len(tests), 'pair')}, {ALPHA:.0%} family-wise); a rank is one more than the "
        "number of rows that are better"
    )
    if len(tests) * 2.0 ** (1 - images) > ALPHA:
        line += "; with so few images nothing could be told apart"
    return line


def _budget(comparison: Comparison, budget: int) -> str:
    rows = [(e, e.method) for e in comparison.entries if not e.shuffled and e.method is not None]
    chosen = [f"{e.label} {effort_of(m)}" for e, m in rows if m.effort is not None]
    fixed = [e.label for e, m in rows if m.effort is None]
    parts = [", ".join(chosen), f"of fixed cost: {', '.join(fixed)}" if fixed else ""]
    return (
        f"budget: at most {budget} forward-equivalents an image, and as much effort as fits: "
        + "; ".join(part for part in parts if part)
    )


def _title(comparison: Comparison) -> str:
    facts = comparison.facts
    revision = f" at {facts.revision}" if facts.revision else ""
    images = "drawn by" if facts.data is None else f"of {facts.data} by"
    return (
        f"Which pixels does each word light up? {facts.n} test images {images} "
        f"{facts.model_id}"
        f"{revision} ({facts.framework}), {comparison.ceiling[BEST].n} {facts.headline}"
    )


def _chosen(comparison: Comparison) -> str:
    parts = []
    for entry in comparison.entries:
        choice = comparison.choices[entry.name]
        options = ", ".join(f"{k} {_option(value)}" for k, value in choice.variant.options.items())
        parts.append(
            f"{entry.label} {choice.threshold:g}" + (f" with {options}" if options else "")
        )
    return ", ".join(parts)


def _option(value: Any) -> str:
    """A calibrated option's value: a number, or the names or numbers of places."""
    return ", ".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}"


def _ranked(comparison: Comparison) -> list[Entry]:
    def place(entry: Entry) -> tuple[bool, float]:
        mean = comparison.estimate(entry.name).mean
        return entry.extra, math.inf if math.isnan(mean) else -mean

    return sorted(comparison.entries, key=place)


def _place(standing: Standing | None) -> str:
    return NONE if standing is None else f"{standing} ({standing.groups})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _number(value: float, digits: int = 3) -> str:
    return NONE if math.isnan(value) else f"{value:.{digits}f}"


def _with_interval(estimate: Estimate) -> str:
    if math.isnan(estimate.low):
        return _number(estimate.mean)
    return f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
