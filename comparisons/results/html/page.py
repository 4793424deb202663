"""The page itself: what a run found, written as HTML."""

from __future__ import annotations

import json
import math
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from wordlight.attribution.viewer.page import resource, script_hash
from wordlight.backends.arrays_file import write_atomically
from wordlight.comparisons.metrics.registry import AVERAGE_PRECISION, BEST, POINTING_GAME
from wordlight.comparisons.results.finished_run import FinishedRun
from wordlight.comparisons.results.html.breakdowns import MOST_WORDS, by_split, by_word, kind_name
from wordlight.comparisons.results.html.cases import find_cases
from wordlight.comparisons.results.html.cost_plot import cost_plot
from wordlight.comparisons.stats.intervals import Estimate
from wordlight.comparisons.store.cells import COST_METRICS, FORWARD_EQUIVALENTS, PEAK_BYTES, SECONDS

NAME = "report.html"
_NONE = "–"
#: The metrics that a reader looks for; the others stand to the right of them.
_FIRST = (
    BEST, "miou@0.4", POINTING_GAME, AVERAGE_PRECISION, *COST_METRICS
)  # fmt: skip
#: How the page calls metrics; others go by their own names.
_METRICS = {
    BEST: "mIoU@best",
    POINTING_GAME: "pointing game",
    AVERAGE_PRECISION: "AP",
    FORWARD_EQUIVALENTS: "forward-eq.",
    SECONDS: "seconds",
    PEAK_BYTES: "peak MiB",
}
#: With how many digits a metric is shown, where it isn't three, and in which unit.
_DIGITS = {FORWARD_EQUIVALENTS: 1, SECONDS: 2, PEAK_BYTES: 1}
_UNITS = {PEAK_BYTES: 2**20}


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
    environment.filters["score"] = _score
    environment.filters["key"] = _key
    environment.filters["interval"] = _interval
    environment.filters["metric"] = _metric_name
    environment.filters["kind"] = kind_name
    template = environment.from_string((here / "page.html.j2").read_text("utf-8"))
    ceiling = _ceiling(run)
    words, words_left_out = by_word(run)
    return template.render(
        run=run,
        summary=run.summary,
        settings=run.settings,
        metrics=[
            *(metric for metric in _FIRST if metric in run.metrics),
            *(metric for metric in run.metrics if metric not in _FIRST),
        ],
        costs=COST_METRICS,
        ceiling=ceiling,
        kinds=[kind for kind in run.summary["other"] if run.most(kind)],
        frameworks=list(dict.fromkeys(row.framework for row in run.rows)),
        splits=by_split(run),
        words=words,
        words_left_out=words_left_out,
        most_words=MOST_WORDS,
        cases=find_cases(run),
        plot=Markup(cost_plot(run.rows, ceiling.get(BEST, math.nan))),
        settings_json=json.dumps(run.settings, indent=2, ensure_ascii=False, sort_keys=True),
        style=Markup((here / "page.css").read_text("utf-8") + resource("viewer.css")),
        script=Markup(script),
        script_hash=script_hash(script),
        images=len(set(run.words.column("sample").to_pylist())),
    )


def _ceiling(run: FinishedRun) -> dict[str, float]:
    found = run.summary.get("ceiling")
    if not isinstance(found, dict):
        return {}
    return {str(k): float(v) for k, v in found.items() if isinstance(v, int | float)}


def _number(value: float, digits: int = 3) -> str:
    return _NONE if math.isnan(value) else f"{value:.{digits}f}"


def _score(estimate: Estimate, metric: str) -> str:
    return _number(estimate.mean / _UNITS.get(metric, 1), _DIGITS.get(metric, 3))


def _key(value: float) -> str:
    """What a column is sorted by; "" for what stands last."""
    return "" if math.isnan(value) else repr(float(value))


def _interval(estimate: Estimate, digits: int = 3) -> str:
    if math.isnan(estimate.low):
        return ""
    return f"[{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def _metric_name(metric: str) -> str:
    return _METRICS.get(metric, metric.replace("miou@", "mIoU@"))
