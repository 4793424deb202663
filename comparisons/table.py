"""The table of a comparison, for a terminal and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import fill

from wordlight.comparisons.budget import effort_of
from wordlight.comparisons.cells import FORWARD_EQUIVALENTS, SECONDS
from wordlight.comparisons.comparison import Comparison
from wordlight.comparisons.datasets import OTHER_ROWS
from wordlight.comparisons.entries import Entry
from wordlight.comparisons.segmentation import AVERAGE_PRECISION, BEST, POINTING_GAME
from wordlight.comparisons.statistics import Estimate

#: No value: nothing was scored, or maps from elsewhere don't say what they cost.
NONE = "-"
#: Of the lines around the table.
_WIDTH = 104

Lines = list[list[str]]


def plain(comparison: Comparison) -> str:
    """Aligned columns, with what must be known about them below."""
    extra = sum(entry.extra for entry in comparison.entries)
    parts = [fill(_title(comparison), _WIDTH), "", _aligned(headline(comparison), extra), ""]
    parts += ["mIoU@best of other words, at the same thresholds:", ""]
    parts += [_aligned(others(comparison), extra), ""]
    parts += [fill(note, _WIDTH, subsequent_indent="  ") for note in notes(comparison)]
    return "\n".join(parts)


def markdown(comparison: Comparison) -> str:
    """The same, as Markdown."""
    parts = [f"**{_title(comparison)}**", "", _piped(headline(comparison)), ""]
    parts += ["mIoU@best of other words, at the same thresholds:", ""]
    parts += [_piped(others(comparison)), "", *(f"- {note}" for note in notes(comparison))]
    return "\n".join(parts) + "\n"


def headline(comparison: Comparison) -> Lines:
    """Header and one line a method, best first; rows of other step sets come after the rest."""
    lines = [
        [
            "method",
            "mIoU@best [95 %]",
            "mIoU@0.4",
            "pointing game [95 %]",
            "AP",
            "forward-eq.",
            "seconds",
        ]
    ]
    for entry in _ranked(comparison):

        def get(metric: str, name: str = entry.name) -> Estimate:
            return comparison.estimate(name, metric)

        lines.append(
            [
                entry.label,
                _with_interval(get(BEST)),
                _number(get("miou@0.4").mean),
                _with_interval(get(POINTING_GAME)),
                _number(get(AVERAGE_PRECISION).mean),
                _number(get(FORWARD_EQUIVALENTS).mean, 1),
                _number(get(SECONDS).mean, 2),
            ]
        )
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
        f"{_number(ceiling[AVERAGE_PRECISION].mean)}; mIoU@best of {others}",
        f"thresholds, chosen on {facts.calibration} calibration images: {_chosen(comparison)}, "
        f"ceiling {comparison.ceiling_threshold:g}",
        f"steps {steps} of {facts.sampling_steps}, counted from 0"
        + (", but for rows that say otherwise" if any(e.extra for e in comparison.entries) else ""),
        "intervals: bootstrap over images; forward-eq. and seconds are a mean image's, all words",
    ]
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
            f"the map of): {', '.join(short)}"
        )
    return lines


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
    return (
        f"Which pixels does each word light up? {facts.n} test images drawn by {facts.model_id}"
        f"{revision} ({facts.framework}), {comparison.ceiling[BEST].n} shape nouns in images of "
        "two or more objects"
    )


def _chosen(comparison: Comparison) -> str:
    parts = []
    for entry in comparison.entries:
        choice = comparison.choices[entry.name]
        options = ", ".join(f"{key} {value:g}" for key, value in choice.variant.options.items())
        parts.append(
            f"{entry.label} {choice.threshold:g}" + (f" with {options}" if options else "")
        )
    return ", ".join(parts)


def _ranked(comparison: Comparison) -> list[Entry]:
    def place(entry: Entry) -> tuple[bool, float]:
        mean = comparison.estimate(entry.name).mean
        return entry.extra, math.inf if math.isnan(mean) else -mean

    return sorted(comparison.entries, key=place)


def _number(value: float, digits: int = 3) -> str:
    return NONE if math.isnan(value) else f"{value:.{digits}f}"


def _with_interval(estimate: Estimate) -> str:
    if math.isnan(estimate.low):
        return _number(estimate.mean)
    return f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _aligned(lines: Lines, extra: int) -> str:
    """Columns in line; the last ``extra`` lines stand below a rule of their own."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    rule = "  ".join("-" * width for width in widths)
    header, *body = ("  ".join(_fit(line, widths)).rstrip() for line in lines)
    ranked = len(body) - extra
    apart = [rule] if 0 < ranked < len(body) else []
    return "\n".join([header, rule, *body[:ranked], *apart, *body[ranked:]])


def _fit(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *rest = line
    # Names to the left, numbers to the right.
    return [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))]


def _piped(lines: Lines) -> str:
    header, *body = (f"| {' | '.join(line)} |" for line in lines)
    rule = f"|{'---|' + '---:|' * (len(lines[0]) - 1)}"
    return "\n".join([header, rule, *body])
