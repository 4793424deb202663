"""The tables of a comparison: for a terminal, in Markdown, LaTeX and CSV."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from textwrap import fill
from typing import Any

from wordlight.comparisons.datasets import OTHER_ROWS
from wordlight.comparisons.metrics.metric import HEADLINE_TABLE, MORE_TABLE, NO_TABLE, Metric
from wordlight.comparisons.metrics.segmentation import BEST
from wordlight.comparisons.results.comparison import Comparison, is_reference
from wordlight.comparisons.results.text_tables import (
    Lines,
    aligned,
    comma_separated,
    escape_markdown,
    markdown_table,
    tabular,
)
from wordlight.comparisons.rows.budget import effort_of
from wordlight.comparisons.rows.row import Row
from wordlight.comparisons.stats.intervals import Estimate
from wordlight.comparisons.stats.paired_tests import (
    ALPHA,
    POWER,
    MethodRank,
    PairedTest,
    smallest_difference,
)
from wordlight.comparisons.store.cells import COMPLETENESS, PEAK_BYTES, SOMETIMES
from wordlight.comparisons.wording import counted

#: No value: nothing was scored, or maps from elsewhere don't say what they cost.
NONE = "-"
NOT_MEASURED = "not measured"
#: Of the lines around the table.
_WIDTH = 104
_CHOICE_COUNTS = (
    ", and for mIoU@best over other choices of its threshold, on resampled calibration images too; "
    "other metrics take thresholds, and all take calibrated options, as they are"
)


def plain(comparison: Comparison) -> str:
    """Aligned columns, with what must be known about them below."""
    extra = sum(row.extra for row in comparison.table_rows)
    parts = [fill(_title(comparison), _WIDTH), "", aligned(headline(comparison), extra), ""]
    for heading, lines in _further(comparison):
        parts += [f"{heading}:", "", aligned(lines, extra), ""]
    parts += [fill(note, _WIDTH, subsequent_indent="  ") for note in notes(comparison)]
    return "\n".join(parts)


def markdown(comparison: Comparison) -> str:
    """Return the tables as Markdown."""
    parts = [
        f"**{escape_markdown(_title(comparison))}**",
        "",
        markdown_table(headline(comparison)),
        "",
    ]
    for heading, lines in _further(comparison):
        parts += [f"{heading}:", "", markdown_table(lines), ""]
    return "\n".join([*parts, *(f"- {escape_markdown(note)}" for note in notes(comparison))]) + "\n"


def latex(comparison: Comparison) -> str:
    """Return the tables as LaTeX with booktabs; the notes are comments."""
    extra = sum(row.extra for row in comparison.table_rows)
    parts = [tabular(headline(comparison), _title(comparison), extra)]
    parts += [tabular(lines, heading, extra) for heading, lines in _further(comparison)]
    remarks = [f"% {line}" for note in notes(comparison) for line in note.splitlines()]
    return "\n".join([*parts, *remarks]) + "\n"


def csv(comparison: Comparison) -> str:
    """Every estimate, a line each: the headline's and those by kind of other words."""
    labels = {row.name: row.label for row in comparison.table_rows}
    lines = [["words", "label", *comparison.results[0].to_json()]]
    kinds = {"headline": comparison.results, **comparison.other}
    for kind, results in kinds.items():
        for one in results:
            lines.append([kind, labels[one.method], *one.to_json().values()])
    return comma_separated(lines)


def _further(comparison: Comparison) -> list[tuple[str, Lines]]:
    found = []
    if more_of(comparison):
        found.append(("Other metrics of the same words", more_metrics(comparison)))
    if any(comparison.other_ceiling[kind].n for kind in OTHER_ROWS):
        heading = "mIoU@best of other words, at the same thresholds"
        found.append((heading, others(comparison)))
    # Where the first table isn't of masks, it is of the first of these.
    tables = model_tables(comparison)
    for table in tables if first_of(comparison) else tables[1:]:
        found.append((table.capitalize(), of_model(comparison, table)[0]))
    return found


def first_of(comparison: Comparison) -> list[Metric]:
    """The metrics of the first table: those of masks."""
    return comparison.of_table(HEADLINE_TABLE) or comparison.of_table(MORE_TABLE)


def more_of(comparison: Comparison) -> list[Metric]:
    """The metrics that the first table has no room for."""
    return comparison.of_table(MORE_TABLE) if comparison.of_table(HEADLINE_TABLE) else []


def model_tables(comparison: Comparison) -> list[str]:
    """The names of the tables of metrics that hold maps against the model."""
    known = (HEADLINE_TABLE, MORE_TABLE, NO_TABLE)
    return list(dict.fromkeys(m.table for m in comparison.metrics if m.table not in known))


def of_model(
    comparison: Comparison, table: str, call: Callable[[Row], str] = lambda row: row.label
) -> tuple[Lines, list[str]]:
    """One of these tables, best first, and the rows that have no value in it.

    Args:
        comparison: the results.
        table: one of ``model_tables``.
        call: a function that names a row.
    """
    metrics = comparison.of_table(table)
    first = metrics[0]
    costs = [metric for metric in comparison.metrics if metric.over == "cost"]
    costs = [one for one in costs if one.name not in SOMETIMES]
    signs = {m: "higher is better" if m.higher_is_better else "lower is better" for m in metrics}
    heads = [f"{m.shown}, {signs[m]} [95 %]" for m in metrics]
    lines = [["method", *heads, *(cost.shown for cost in costs)]]
    judged = [e for e in comparison.table_rows if comparison.has(e.name, first.name)]
    measured = [e for e in judged if comparison.estimate(e.name, first.name).n]
    for row in sorted(measured, key=lambda row: _place_by(comparison, row, first)):
        cells = []
        for metric in metrics:
            result = comparison.result(row.name, metric.name)
            mark = result.standing.groups if result.standing else ""
            if is_reference(row, metric):
                mark = "reference"
            cells.append(f"{_with_interval(result.estimate, metric)} {mark}".rstrip())
        numbers = [_value(comparison.estimate(row.name, cost.name), cost) for cost in costs]
        lines.append([call(row), *cells, *numbers])
    return lines, [call(row) for row in judged if row not in measured]


def more_metrics(comparison: Comparison) -> Lines:
    """Header and one line a method: the metrics that the headline has no room for."""
    metrics = more_of(comparison)
    lines = [["method", *(metric.shown for metric in metrics)]]
    for row in _ranked(comparison):
        values = (_value(comparison.estimate(row.name, m.name), m) for m in metrics)
        lines.append([row.label, *values])
    return lines


def headline(comparison: Comparison) -> Lines:
    """Header and one line a method, best first; rows of other step sets come after the rest."""
    metrics = first_of(comparison)
    if not metrics:
        return of_model(comparison, model_tables(comparison)[0])[0]
    costs = [
        one
        for one in comparison.metrics
        if one.over == "cost" and (one.name not in SOMETIMES or _tells(comparison, one.name))
    ]
    header = ["method"]
    for metric in metrics:
        header.append(f"{metric.shown} [95 %]" if metric.interval else metric.shown)
        header += [_standing_head(comparison, metric)] * metric.ranked
    lines = [[*header, *(cost.shown for cost in costs)]]
    for row in _ranked(comparison):
        line = [row.label]
        for metric in metrics:
            result = comparison.result(row.name, metric.name)
            show = _with_interval if metric.interval else _value
            line.append(show(result.estimate, metric))
            line += [_place(result.standing)] * metric.ranked
        values = (_value(comparison.estimate(row.name, cost.name), cost) for cost in costs)
        lines.append([*line, *values])
    last = len(lines) - sum(row.extra for row in comparison.table_rows)
    blank = [NONE] * (len(lines[0]) - 2)
    lines[last:last] = [[name, NOT_MEASURED, *blank] for name, _ in comparison.facts.not_measured]
    return lines


def _standing_head(comparison: Comparison, metric: Metric) -> str:
    best = _reference_row(comparison, metric.name)
    return "rank (group)" if best is None else "against the best"


def _reference_row(comparison: Comparison, metric: str) -> Row | None:
    """The row that all others were tested against; None where every pair was tested."""
    for row in comparison.table_rows:
        standing = comparison.has(row.name, metric) and comparison.standing(row.name, metric)
        if standing and standing.against_best == "best":
            return row
    return None


def others(comparison: Comparison) -> Lines:
    """Header and one line a method: mIoU at the chosen threshold by kind of other words."""
    kinds = [kind for kind in OTHER_ROWS if comparison.other_ceiling[kind].n]
    lines = [
        ["method", *(f"{OTHER_ROWS[k]} ({comparison.other_ceiling[k].n})" for k in kinds)],
    ]
    for row in _ranked(comparison):
        of_row = [
            next(one.estimate for one in comparison.other[kind] if one.method == row.name)
            for kind in kinds
        ]
        lines.append([row.label, *(_number(e.mean) for e in of_row)])
    return lines


def notes(comparison: Comparison) -> list[str]:
    """Return notes on the numbers, a line each."""
    facts = comparison.facts
    lines = [
        _kept(facts.accounting.kept, facts.accounting.dropped),
        *_ceiling(comparison),
        *_chosen(comparison),
        f"steps {', '.join(str(step) for step in facts.steps)} of {facts.sampling_steps}, counted "
        "from 0"
        + (
            ", but for rows that say otherwise"
            if any(e.extra for e in comparison.table_rows)
            else ""
        ),
        *metric_notes(comparison),
        "intervals: t over images"
        + (_CHOICE_COUNTS if comparison.segments else "")
        + "; forward-eq. and seconds are a mean image's, all words"
        + (
            "; peak memory is the device's, the model included"
            if _tells(comparison, PEAK_BYTES)
            else f"; {facts.device} doesn't tell its peak memory"
        ),
    ]
    if _tells(comparison, COMPLETENESS):
        lines.append(
            "completeness error: how much of the push the maps of all words and marks together "
            "miss or exceed, as a share of it, for methods whose maps are shares of it: few nodes, "
            "samples or orders leave more"
        )
    if len(facts.frameworks) > 1:
        lines.append(
            f"maps by {' and '.join(facts.frameworks)}, of the same images, sampled by "
            f"{facts.framework}"
        )
    if comparison.failures:
        lines.append(_failed(comparison))
    if comparison.segments and comparison.tests[BEST]:
        lines += _told_apart(comparison)
    if model_tables(comparison):
        lines += _of_model_tables(comparison)
    lines += [f"{name}: {NOT_MEASURED}: {why}" for name, why in facts.not_measured]
    lines += [f"{name}: {NOT_MEASURED}: {why}" for name, why in facts.unmeasured]
    if facts.budget is not None:
        lines.append(_budget(comparison, facts.budget))
    if not any(row.family == "control" for row in comparison.table_rows):
        lines.append(
            "no controls were asked for: these numbers don't say whether a method beats a centre "
            "prior or another word's map"
        )
    return lines + _short(comparison)


def metric_notes(comparison: Comparison) -> list[str]:
    """Return the metrics' own notes: those of masks in one line, the others a line each."""
    of_masks = (*comparison.of_table(HEADLINE_TABLE), *comparison.of_table(MORE_TABLE))
    joined = "; ".join(dict.fromkeys(note for metric in of_masks for note in metric.notes))
    others = [metric for metric in comparison.metrics if metric not in of_masks]
    lines = [joined] if joined else []
    return [*lines, *dict.fromkeys(note for metric in others for note in metric.notes)]


def _kept(kept: Mapping[str, int], dropped: Mapping[str, int]) -> str:
    by_kind = ", ".join(
        f"{name.replace('-', ' ')} {kept[name]} of {kept[name] + dropped[name]}" for name in kept
    )
    return (
        f"words kept {sum(kept.values())}, dropped {sum(dropped.values())} "
        f"(the drawn image shows no such thing); kept by kind: {by_kind}"
    )


def _ceiling(comparison: Comparison) -> list[str]:
    shown = [m for m in comparison.of_table(HEADLINE_TABLE) if m.name in comparison.ceiling]
    if not shown:
        return []
    others = ", ".join(
        f"{OTHER_ROWS[kind]} {_number(one.mean)}"
        for kind, one in comparison.other_ceiling.items()
        if one.n
    )
    values = ", ".join(f"{m.shown} {_value(comparison.ceiling[m.name], m)}" for m in shown)
    return [
        "ceiling (the true mask on the latent grid and back; a map made for the score alone can do "
        f"better): {values}" + (f"; mIoU@best of {others}" if others else "")
    ]


def _of_model_tables(comparison: Comparison) -> list[str]:
    lines = [
        "rows that share a letter can't be told apart (paired sign-flip permutation tests over "
        f"images, Holm's correction within a metric, {ALPHA:.0%} family-wise)"
    ]
    if any(row.shuffled for row in comparison.table_rows):
        lines.append(
            "shuffled-word gives each word the map of a word of another object, or, where a word "
            "has none, the next word's (removal leaves that one out)"
        )
    for table in model_tables(comparison):
        if missing := of_model(comparison, table)[1]:
            lines.append(f"{table}: {NOT_MEASURED}: {', '.join(missing)}")
    return lines


def _short(comparison: Comparison) -> list[str]:
    if not comparison.segments:
        return []
    words = comparison.facts.words
    counts = {row.label: comparison.estimate(row.name).n for row in _of_masks(comparison)}
    short = [f"{label} {count}" for label, count in counts.items() if count != words]
    if not short:
        return []
    return [
        f"headline words scored, where fewer than {words} (no other object to take "
        f"the map of{', or failed cells' if comparison.failures else ''}): {', '.join(short)}"
    ]


def _failed(comparison: Comparison) -> str:
    labels: dict[tuple[str, str], str] = {}
    for row in comparison.table_rows:
        names = [row.name, *(variant.cell for variant in row.variants if not row.shuffled)]
        labels |= {(row.framework, name): row.label for name in names}
    counts = Counter(
        labels.get((one.framework, one.method), one.method) for one in comparison.failures
    )
    lost = f"; nothing was left of {', '.join(comparison.lost)}" if comparison.lost else ""
    return (
        f"{counted(len(comparison.failures), 'cell')} failed, whose images are left out of "
        f"their rows: "
        f"{', '.join(f'{label} {count}' for label, count in counts.items())}{lost}; "
        "the same command tries them again"
    )


def _tells(comparison: Comparison, metric: str) -> bool:
    return any(one.metric == metric for one in comparison.results)


def _told_apart(comparison: Comparison) -> list[str]:
    tests = comparison.tests[BEST]
    images = max(test.images for test in tests)
    how = (
        f"paired sign-flip permutation tests over {counted(images, 'image')}, at these thresholds, "
        f"Holm's correction over {counted(len(tests), 'pair')}, {ALPHA:.0%} family-wise"
    )
    best = _reference_row(comparison, BEST)
    if best is None:
        line = (
            "rows that share a group's letter are tied: their mIoU@best can't be told apart "
            f"({how}); a rank is one more than the number of rows that are better"
        )
    else:
        line = (
            f"against the best: whether mIoU@best is significantly lower or higher than that of "
            f"{best.label}, which was best on the calibration images, or tied ({how}); methods "
            "are tested against their controls too, and other pairs with --pairs all"
        )
    lines = [line, _smallest_difference(tests)]
    return [*lines, *_unbeaten(comparison)] if best is not None else lines


def _smallest_difference(tests: Sequence[PairedTest]) -> str:
    found = smallest_difference(tests)
    if math.isinf(found):
        return "with so few images nothing could be told apart"
    if math.isnan(found):
        return "the smallest difference that could be found isn't known: no pair varies over images"
    return (
        f"the smallest difference of mIoU@best that such a test finds {POWER:.0%} of the time is "
        f"about {found:.3f} (of the middle pair, after the correction)"
    )


def _unbeaten(comparison: Comparison) -> list[str]:
    """Methods that aren't significantly better than each of their controls."""
    rows = {row.name: row for row in comparison.table_rows}
    unbeaten: dict[str, list[str]] = {}
    for test in comparison.tests[BEST]:
        first, second = rows[test.first], rows[test.second]
        if (first.family == "control") == (second.family == "control"):
            continue
        turn, method, control = 1, first, second
        if first.family == "control":
            turn, method, control = -1, second, first
        own = not control.shuffled or control.variants == method.variants
        if own and not (turn * test.difference > 0 and test.adjusted <= ALPHA):
            unbeaten.setdefault(method.label, []).append(control.label)
    if not unbeaten:
        return []
    listed = "; ".join(f"{label}: {', '.join(of)}" for label, of in unbeaten.items())
    return [f"controls that a method doesn't beat significantly: {listed}"]


def _budget(comparison: Comparison, budget: int) -> str:
    own = [e for e in comparison.table_rows if not (e.shuffled or e.reference)]
    live = [(e, e.method) for e in own if e.method is not None]
    chosen = [f"{e.label} {effort_of(m)}" for e, m in live if m.effort is not None]
    fixed = [e.label for e, m in live if m.effort is None]
    parts = [", ".join(chosen), f"of fixed cost: {', '.join(fixed)}" if fixed else ""]
    return (
        f"budget: at most {budget} forward-equivalents an image, and as much effort as fits: "
        + "; ".join(part for part in parts if part)
    )


def _title(comparison: Comparison) -> str:
    facts = comparison.facts
    revision = f" at {facts.revision}" if facts.revision else ""
    images = "drawn by" if facts.data is None else f"of {facts.data} by"
    question = "Which pixels does each word light up?"
    if not first_of(comparison):
        question = "Do maps say what the model does?"
    return (
        f"{question} {counted(facts.n, 'test image')} {images} {facts.model_id}"
        f"{revision} ({facts.framework}), {facts.words} {facts.headline}"
    )


def _chosen(comparison: Comparison) -> list[str]:
    parts = []
    cut = not math.isnan(comparison.ceiling_threshold)
    for row in comparison.table_rows:
        choice = comparison.choices[row.name]
        options = ", ".join(f"{k} {_option(value)}" for k, value in choice.variant.options.items())
        if cut and choice.thresholds is not None:
            parts.append(
                f"{row.label} {choice.threshold:g}" + (f" with {options}" if options else "")
            )
        elif options:
            parts.append(f"{row.label} with {options}")
    if not parts:
        return []
    ceiling = f", ceiling {comparison.ceiling_threshold:g}" if cut else ""
    what = "thresholds, chosen" if cut else "chosen"
    return [
        f"{what} on {counted(comparison.facts.calibration, 'calibration image')}: "
        f"{', '.join(parts)}{ceiling}"
    ]


def _of_masks(comparison: Comparison) -> list[Row]:
    """The rows of the tables of masks."""
    return [row for row in comparison.table_rows if not row.reference]


def _option(value: Any) -> str:
    """A calibrated option's value: a number, or the names or numbers of places."""
    return ", ".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}"


def _ranked(comparison: Comparison) -> list[Row]:
    metrics = first_of(comparison)
    first = next((metric for metric in metrics if metric.ranked), metrics[0])
    return sorted(_of_masks(comparison), key=lambda row: _place_by(comparison, row, first))


def _place_by(comparison: Comparison, row: Row, metric: Metric) -> tuple[bool, float]:
    mean = comparison.estimate(row.name, metric.name).mean
    turned = -mean if metric.higher_is_better else mean
    return row.extra, math.inf if math.isnan(mean) else turned


def _place(standing: MethodRank | None) -> str:
    return NONE if standing is None else standing.shown


def _number(value: float, digits: int = 3) -> str:
    return NONE if math.isnan(value) else f"{value:.{digits}f}"


def _value(estimate: Estimate, metric: Metric) -> str:
    return _number(estimate.mean / metric.unit, metric.digits)


def _with_interval(estimate: Estimate, metric: Metric) -> str:
    if math.isnan(estimate.low):
        return _value(estimate, metric)
    low, high = (_number(end / metric.unit, metric.digits) for end in (estimate.low, estimate.high))
    return f"{_value(estimate, metric)} [{low}, {high}]"
