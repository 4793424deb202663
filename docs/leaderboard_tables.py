"""Tables of ``docs/leaderboard.md`` and ``docs/findings.md``, of what comparisons left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from wordlight.attribution import registry
from wordlight.comparisons.datasets import OTHER_ROWS
from wordlight.comparisons.metrics.segmentation import AVERAGE_PRECISION, BEST, POINTING_GAME
from wordlight.comparisons.results.finished_run import HEADLINE, FinishedRun, MethodRow
from wordlight.comparisons.results.text_tables import Lines, markdown_table
from wordlight.comparisons.stats.intervals import SHARE, Estimate, mean_over_words
from wordlight.comparisons.stats.paired_tests import ALPHA
from wordlight.comparisons.store.cells import COMPLETENESS, FORWARD_EQUIVALENTS, SECONDS
from wordlight.comparisons.studies.daam_paper import CLOSED_VOCABULARY
from wordlight.comparisons.studies.results import estimate_text

NONE = "-"


@dataclass(frozen=True)
class Difference:
    """What a row's headline mIoU is above another's, and the corrected p of it."""

    mean: float
    p: float

    @property
    def is_better(self) -> bool:
        return self.mean > 0 and self.p <= ALPHA

    def __str__(self) -> str:
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        # No minus before a zero.
        return f"{round(self.mean, 3) + 0.0:+.3f} ({p})"


def differences(run: FinishedRun) -> dict[tuple[str, str], Difference]:
    """Every pair of rows that was tested, both ways."""
    found = {}
    for test in run.summary["tests"][BEST]:
        one, other = str(test["first"]), str(test["second"])
        mean, p = float(test["difference"]), float(test["adjusted"])
        found[one, other] = Difference(mean, p)
        found[other, one] = Difference(0.0 - mean, p)
    return found


def shuffled_of(run: FinishedRun) -> dict[str, MethodRow]:
    """Of each method, the row of its maps of other objects' words."""
    return {row.name.partition(".")[2]: row for row in run.rows if row.shuffled}


def standing_rows(run: FinishedRun) -> list[MethodRow]:
    """The rows of a table, best first: all but those of other objects' words, which stand in a
    column."""
    return [row for row in run.rows if not row.shuffled]


def scores(run: FinishedRun, *further: FinishedRun) -> str:
    """The table of a comparison; rows that only a further one has stand below, unranked.

    Raises ValueError for a further one of other images or steps.
    """
    lines: Lines = [
        [
            "method",
            "family",
            "mIoU@best [95 %]",
            standing_head(run),
            "of another object's word",
            "mIoU@0.4",
            "pointing game",
            "AP",
            "forward-eq.",
            "seconds",
            "completeness error %",
        ]
    ]
    known = {row.name for row in run.rows}
    for one in (run, *further):
        check_same_images(run, one)
        other_words = shuffled_of(one)
        for row in standing_rows(one):
            if one is not run and row.name in known:
                continue
            other = other_words.get(row.name)
            lines.append(
                [
                    linked(row),
                    row.family if not row.extra else "looks at other steps",
                    estimate_text(row.best),
                    row.standing if one is run and row.standing else NONE,
                    NONE if other is None else estimate_text(other.best),
                    *(
                        number(row.estimates[metric], digits)
                        for metric, digits in (
                            ("miou@0.4", 3),
                            (POINTING_GAME, 3),
                            (AVERAGE_PRECISION, 3),
                            (FORWARD_EQUIVALENTS, 0),
                            (SECONDS, 2),
                        )
                    ),
                    number(row.estimates.get(COMPLETENESS), 1, unit=0.01),
                ]
            )
    return markdown_table(lines)


def by_kind(run: FinishedRun) -> str:
    """mIoU@best of every kind of word, with how many there are; rows as in ``scores``."""
    kinds = {
        kind: f"{name} ({run.n_words(kind)})"
        for kind, name in {HEADLINE: nouns(run), **OTHER_ROWS}.items()
        if run.n_words(kind)
    }
    lines: Lines = [["method", *kinds.values()]]
    for row in standing_rows(run):
        lines.append([linked(row), *(estimate_text(row.of_kind(kind)) for kind in kinds)])
    return markdown_table(lines)


def nouns(run: FinishedRun) -> str:
    """What a table calls the words of a run's headline."""
    return "shape nouns" if "shape-noun" in run.summary["kept"] else "nouns"


def across(runs: Sequence[FinishedRun], costly: Sequence[FinishedRun] = ()) -> str:
    """mIoU@best of every method on several models, and on which it beats all of its controls.

    What a model's run lacks is of its costly one, of fewer images, where there is one.
    """
    models = [str(run.settings["model"]) for run in runs]
    found: list[dict[str, tuple[FinishedRun, MethodRow]]] = []
    for model, run in zip(models, runs, strict=True):
        rows: dict[str, tuple[FinishedRun, MethodRow]] = {}
        for one in (run, *(other for other in costly if other.settings["model"] == model)):
            for row in standing_rows(one):
                if not row.extra:
                    rows.setdefault(row.name, (one, row))
        found.append(rows)
    names = dict.fromkeys(name for rows in found for name in rows)
    lines: Lines = [["method", *(f"`{model}`" for model in models), "beats all its controls on"]]
    for name in names:
        there = [rows.get(name) for rows in found]
        first = next(one[1] for one in there if one is not None)
        beaten = [
            model
            for model, one in zip(models, there, strict=True)
            if one is not None and not unbeaten_controls(*one)
        ]
        cells = []
        for one in there:
            if one is None:
                cells.append(NONE)
                continue
            run, row = one
            few = "" if run in runs else f" ({run.summary['n']} images)"
            cells.append(f"{estimate_text(row.best)}{few}")
        verdict = ", ".join(beaten) or "none of them"
        lines.append(
            [
                linked(first).partition(", ")[0],
                *cells,
                NONE if first.family == "control" else verdict,
            ]
        )
    return markdown_table(lines)


def by_vocabulary(run: FinishedRun) -> str:
    """mIoU@best of all nouns that have a mask, and of those alone that name one of COCO's classes.

    These are the closed and the open vocabulary of Tang et al. 2022.
    """
    shown = [
        (str(one["method"]), str(one["sample"]), str(one["word"]).lower(), float(one["value"]))
        for one in run.scores.to_pylist()
        if one["kind"] in (HEADLINE, "one-object")
    ]
    closed = [one for one in shown if one[2] in CLOSED_VOCABULARY]

    def of(words: Sequence[tuple[str, str, str, float]], name: str) -> Estimate:
        own = [one for one in words if one[0] == name]
        samples, scores = [sample for _, sample, _, _ in own], [value for *_, value in own]
        return mean_over_words(samples, scores, bounds=SHARE)

    rows = standing_rows(run)
    n_closed, n_all = (max(of(words, row.name).n for row in rows) for words in (closed, shown))
    lines: Lines = [["method", f"COCO's classes ({n_closed})", f"all nouns ({n_all})"]]
    for row in rows:
        lines.append([linked(row), *(estimate_text(of(w, row.name)) for w in (closed, shown))])
    return markdown_table(lines)


def check_same_images(one: FinishedRun, other: FinishedRun) -> None:
    """Raises ValueError where two comparisons are of other images or steps."""
    for key in ("n", "seed", "steps"):
        if one.summary[key] != other.summary[key]:
            raise ValueError(
                f"{other.folder} is of other images or steps than {one.folder}: its {key} is "
                f"{other.summary[key]}, not {one.summary[key]}"
            )
    if one.settings["model"] != other.settings["model"]:
        raise ValueError(f"{other.folder} is of another model than {one.folder}")


def standing_head(run: FinishedRun) -> str:
    """The head of the column of ranks, or of how rows compare with the best one."""
    return "against the best" if run.has_best else "rank (group)"


def number(estimate: Estimate | None, digits: int, unit: float = 1.0) -> str:
    """A mean without its interval; nothing of what wasn't measured."""
    if estimate is None or np.isnan(estimate.mean):
        return NONE
    return f"{estimate.mean / unit:.{digits}f}"


def linked(row: MethodRow) -> str:
    """A row's name, linked to its method's page, with the effort that was chosen for it."""
    # By its class: a row may be named otherwise, and integrated gradients have an option "method".
    names = {
        f"{kind.__module__}.{kind.__qualname__}": m for m, kind in registry.available().items()
    }
    method = names.get(str(row.settings.get("class")), row.name)
    page = "controls" if row.family == "control" else method
    name = f"[`{row.label}`](methods/{page}.md)"
    kind = registry.available().get(method)
    effort = None if kind is None else kind.effort
    if effort is None or effort not in row.settings:
        return name
    return f"{name}, {effort} {row.settings[effort]}"


def notes(run: FinishedRun) -> str:
    """What must be known about a comparison's numbers, as a list."""
    return "\n".join(f"- {note}" for note in run.summary["notes"])


def against_controls(run: FinishedRun) -> str:
    """Of each method, how far it is above ``guidance-norm`` and its own map of another object's
    word, and which controls it doesn't beat."""
    tested = differences(run)
    other_words = shuffled_of(run)
    lines: Lines = [
        [
            "method",
            "mIoU@best [95 %]",
            "above guidance-norm",
            "above its map of another object's word",
            "controls that it doesn't beat",
        ]
    ]
    for row in standing_rows(run):
        if row.family == "control" or row.extra:
            continue
        own = other_words.get(row.name)
        lines.append(
            [
                linked(row),
                estimate_text(row.best),
                str(tested.get((row.name, "guidance-norm"), NONE)),
                NONE if own is None else str(tested.get((row.name, own.name), NONE)),
                ", ".join(unbeaten_controls(run, row)) or "none",
            ]
        )
    return markdown_table(lines)


def on_pictures(runs: Sequence[FinishedRun]) -> str:
    """mIoU@best of every method on each of several sets of pictures, and that of its maps of other
    objects' words."""
    found = [{row.name: row for row in standing_rows(run) if not row.extra} for run in runs]
    lines: Lines = [["method", *(f"`{run.settings['model']}`, {_split(run)}" for run in runs)]]
    for name, first in found[0].items():
        cells = []
        for run, rows in zip(runs, found, strict=True):
            other = shuffled_of(run).get(name)
            of_other = "" if other is None else f"; {number(other.best, 3)}"
            cells.append(NONE if name not in rows else estimate_text(rows[name].best) + of_other)
        lines.append([linked(first), *cells])
    words = ["words", *(str(max(row.best.n for row in run.rows)) for run in runs)]
    return markdown_table([*lines, words])


def _split(run: FinishedRun) -> str:
    """The split of a data set that was asked for as ``DATA,test=SPLIT``."""
    file = run.folder / "run.yaml"
    asked = yaml.safe_load(file.read_text("utf-8")) if file.is_file() else {}
    return str(asked.get("data")).partition("test=")[2] or "test"


def unbeaten_controls(run: FinishedRun, row: MethodRow) -> list[str]:
    """The controls, its own map of another object's word among them, that a row doesn't beat."""
    tested = differences(run)
    controls = [one for one in standing_rows(run) if one.family == "control"]
    if (own := shuffled_of(run).get(row.name)) is not None:
        controls.append(own)
    return [
        one.label
        for one in controls
        if (row.name, one.name) not in tested or not tested[row.name, one.name].is_better
    ]


def frameworks(run: FinishedRun) -> str:
    """The same methods on two frameworks, side by side."""
    names = list(dict.fromkeys(row.framework for row in run.rows))
    by_method: dict[str, dict[str, MethodRow]] = {}
    for row in run.rows:
        by_method.setdefault(row.name.partition("@")[0], {})[row.framework] = row
    tested = differences(run)
    lines: Lines = [
        [
            "method",
            *(f"mIoU@best on {name} [95 %]" for name in names),
            "difference",
            *(f"seconds on {name}" for name in names),
        ]
    ]
    for method, rows in by_method.items():
        there = [rows[name] for name in names if name in rows]
        if len(there) < len(names):
            raise ValueError(f"{run.folder} has {method} on {there[0].framework} alone")
        first, second = there[0].name, there[1].name
        lines.append(
            [
                method.replace("shuffled-word.", "shuffled-word of "),
                *(estimate_text(row.best) for row in there),
                str(tested.get((second, first), NONE)),
                *(number(row.estimates[SECONDS], 2) for row in there),
            ]
        )
    return markdown_table(lines)


def read_runs(folders: Iterable[Path]) -> list[FinishedRun]:
    """Finished comparisons; raises ValueError for one that is none, or of an earlier release."""
    runs = [FinishedRun.read(folder) for folder in folders]
    for run in runs:
        if "tests" not in run.summary:
            raise ValueError(f"{run.folder} has no tests in its summary: run it again")
    return runs


def about(run: FinishedRun) -> str:
    """What a table is of, in a line."""
    facts: Mapping[str, Any] = run.summary
    words: Sequence[int] = [row.best.n for row in run.rows]
    revision = f" at `{run.settings['revision']}`" if run.settings.get("revision") else ""
    return (
        f"`{run.settings['model']}`{revision}: {facts['n']} test images, {max(words)} {nouns(run)} "
        "in images of two or more objects."
    )
