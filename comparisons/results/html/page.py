"""The page itself: what a run found, written as HTML."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from wordlight.attribution.viewer.page import resource, script_hash
from wordlight.backends.arrays_file import write_atomically
from wordlight.comparisons.metrics.metric import HEADLINE_TABLE, MORE_TABLE, NO_TABLE
from wordlight.comparisons.metrics.segmentation import BEST
from wordlight.comparisons.results.finished_run import FinishedRun, MethodRow
from wordlight.comparisons.results.html.breakdowns import MOST_WORDS, by_split, by_word, kind_name
from wordlight.comparisons.results.html.cases import find_cases
from wordlight.comparisons.results.html.cost_plot import cost_plot
from wordlight.comparisons.stats.intervals import Estimate
from wordlight.comparisons.wording import counted

NAME = "report.html"
_NONE = "–"


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into the folder of a finished run, by atomic rename, and give its path.

    Everything is read from the folder, so the page can be made again at any time. It needs no
    other file and no network: its content security policy forbids every request.

    Raises ValueError where the folder holds no finished run, or a damaged one.
    """
    run = FinishedRun.read(folder)
    path = folder / NAME
    write_atomically(path, _render(run).encode("utf-8", "replace"))
    return path


def _render(run: FinishedRun) -> str:
    here = files("wordlight.comparisons.results.html")
    script = (here / "sort.js").read_text("utf-8") + resource("viewer.js")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    environment.filters["key"] = _key
    environment.filters["interval"] = _interval
    environment.filters["kind"] = kind_name
    template = environment.from_string((here / "page.html.j2").read_text("utf-8"))
    ceiling = _ceiling(run)
    words, words_left_out = by_word(run)
    return template.render(
        run=run,
        summary=run.summary,
        settings=run.settings,
        tables=_tables(run),
        segments=BEST in run.metrics,
        standing_head="against the best" if run.has_best else "rank",
        ceiling=ceiling,
        kinds=[kind for kind in run.summary["other"] if run.n_words(kind)],
        frameworks=list(dict.fromkeys(row.framework for row in run.rows)),
        splits=by_split(run),
        words=words,
        words_left_out=words_left_out,
        most_words=MOST_WORDS,
        cases=find_cases(run) if BEST in run.metrics else [],
        plot=Markup(cost_plot(run.rows, ceiling[BEST])) if BEST in ceiling else "",
        settings_json=json.dumps(run.settings, indent=2, ensure_ascii=False, sort_keys=True),
        style=Markup((here / "page.css").read_text("utf-8") + resource("viewer.css")),
        script=Markup(script),
        script_hash=script_hash(script),
        images=counted(len(set(run.words.column("sample").to_pylist())), "image"),
    )


@dataclass(frozen=True)
class Table:
    """One table of scores: the metrics that are its columns, and the rows that were judged so."""

    heading: str
    metrics: list[Column]
    rows: list[MethodRow]


@dataclass(frozen=True)
class Column:
    """A metric as the page shows it."""

    name: str
    label: str
    higher_is_better: bool
    cost: bool
    unit: float
    digits: int

    def score(self, estimate: Estimate) -> str:
        """A mean, in the metric's unit."""
        return _number(estimate.mean / self.unit, self.digits)


def _tables(run: FinishedRun) -> list[Table]:
    """The table of the metrics of masks, and one of each kind that holds maps against the model."""
    columns = [
        Column(
            name,
            str(facts["label"]),
            bool(facts["higher_is_better"]),
            facts["over"] == "cost",
            float(facts["unit"]),
            int(facts["digits"]),
        )
        for name, facts in run.facts.items()
        if name in run.metrics
    ]
    costs = [one for one in columns if one.cost]
    groups: dict[str, list[Column]] = {}
    for one in columns:
        if not one.cost:
            groups.setdefault(_heading(run, one), []).append(one)
    if _MORE in groups and _SCORES not in groups:
        groups = {_SCORES: groups.pop(_MORE), **groups}
    tables = []
    for heading, own in groups.items():
        rows = [row for row in run.rows if any(one.name in row.estimates for one in own)]
        if heading in (_SCORES, _MORE):
            rows = [row for row in rows if not row.reference]
        else:
            rows = sorted(rows, key=lambda row: _place(row, own[0]))
        shown = own if heading == _MORE else [*own, *costs]
        tables.append(Table(heading, shown, rows))
    return tables


_SCORES, _MORE = "Scores", "Other metrics of the same words"


def _heading(run: FinishedRun, column: Column) -> str:
    table = str(run.facts[column.name]["table"])
    if table == HEADLINE_TABLE:
        return _SCORES
    return _MORE if table in (MORE_TABLE, NO_TABLE) else table.capitalize()


def _place(row: MethodRow, column: Column) -> tuple[bool, float]:
    mean = row.estimates[column.name].mean
    turned = -mean if column.higher_is_better else mean
    return row.extra, math.inf if math.isnan(mean) else turned


def _ceiling(run: FinishedRun) -> dict[str, float]:
    found = run.summary.get("ceiling")
    if not isinstance(found, dict):
        return {}
    return {str(k): float(v) for k, v in found.items() if isinstance(v, int | float)}


def _number(value: float, digits: int = 3) -> str:
    return _NONE if math.isnan(value) else f"{value:.{digits}f}"


def _key(value: float) -> str:
    """Return the key that a column is sorted by; "" for what stands last."""
    return "" if math.isnan(value) else repr(float(value))


def _interval(estimate: Estimate, digits: int = 3) -> str:
    if math.isnan(estimate.low):
        return ""
    return f"[{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
