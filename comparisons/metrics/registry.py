"""Metrics by name: this package's own and every installed one."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from wordlight.backends.installed import entry_points
from wordlight.comparisons.metrics import cost
from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.store.versions import releases_of

GROUP = "wordlight.metrics"

#: A metric's or a group's name; a name with options, ``{"metric": "infidelity", "sets": 4}``; or a
#: metric.
Asked = str | Mapping[str, Any] | Metric


class UnknownMetricError(ValueError):
    """No installed metric or group has this name."""


def available() -> dict[str, Metric]:
    """Every installed metric, by name: those of a group together, in their group's order.

    Raises ValueError when a package registers what is neither a metric nor several, or two
    packages the same name.
    """
    found: dict[str, Metric] = {}
    for entry in entry_points(GROUP):
        loaded = entry.load()
        metrics = (loaded,) if isinstance(loaded, Metric) else loaded
        if not isinstance(metrics, Sequence) or not all(isinstance(m, Metric) for m in metrics):
            raise ValueError(f"{entry.value}, registered as {entry.name!r}, is no metric")
        for metric in metrics:
            if found.setdefault(metric.name, metric) is not metric:
                raise ValueError(f"two packages register a metric {metric.name!r}")
    return found


def groups() -> dict[str, tuple[Metric, ...]]:
    """The names that stand for several metrics, with these."""
    found: dict[str, list[Metric]] = {}
    for metric in available().values():
        for group in metric.groups:
            found.setdefault(group, []).append(metric)
    return {name: tuple(metrics) for name, metrics in found.items()}


def resolve(asked: Sequence[Asked]) -> tuple[Metric, ...]:
    """The metrics that were asked for, each once, without those of cost, which are always there.

    Raises UnknownMetricError with the nearest names, ValueError for options that a metric hasn't
    and for a metric that is asked for twice in two ways.
    """
    if isinstance(asked, str | Mapping | Metric):
        raise ValueError(f"metrics must be a list of metrics, not {asked!r}")
    found: dict[str, Metric] = {}
    costs = {metric.name for metric in cost.METRICS}
    for metric in (metric for one in asked for metric in _metrics_of(one)):
        if metric.name in costs:
            continue
        same = found.setdefault(metric.name, metric)
        if same is not metric and identity(same) != identity(metric):
            raise ValueError(f"{metric.name} is asked for twice, with different options")
    if not found:
        raise ValueError("there is nothing to measure: name at least one metric")
    return tuple(found.values())


def parse(text: str) -> list[Asked]:
    """Parse a text such as ``segmentation,infidelity,sets=4`` into names, each with the options
    that follow it.

    Raises ValueError for an option before any name.
    """
    found: list[dict[str, Any]] = []
    for part in text.split(","):
        option, equals, value = part.partition("=")
        if not equals:
            found.append({"metric": part})
            continue
        if not found or not option or not value:
            raise ValueError(
                f"metrics are NAME,NAME,... or NAME,OPTION=VALUE,NAME,..., not {text!r}"
            )
        if option in found[-1]:
            raise ValueError(f"{text!r} says {option} of {found[-1]['metric']} twice")
        try:
            found[-1][option] = json.loads(value)
        except json.JSONDecodeError:
            found[-1][option] = value
    return [one if len(one) > 1 else str(one["metric"]) for one in found]


def identity(metric: Metric) -> str:
    """Return the facts that tell a metric's scores from those of another that is called alike: its
    options, and the release of the package that it comes from where that isn't this one."""
    function = getattr(metric.score, "func", metric.score)
    package = function.__module__.partition(".")[0]
    releases = () if package == "wordlight" else releases_of(package)
    return json.dumps([dict(metric.options), *releases], sort_keys=True)


def _metrics_of(one: Asked) -> Iterator[Metric]:
    if isinstance(one, Metric):
        yield one
        return
    if isinstance(one, str):
        yield from _named(one)
        return
    options = {key: value for key, value in one.items() if key != "metric"}
    name = one.get("metric")
    if not isinstance(name, str):
        raise ValueError(f"a metric with options needs its name as 'metric', not {name!r}")
    metrics = _named(name)
    known = {option for metric in metrics for option in metric.options}
    if unknown := sorted(options.keys() - known):
        there = ", ".join(sorted(known)) or "none"
        raise ValueError(f"{name} has no option {unknown[0]!r}; it has: {there}")
    for metric in metrics:
        own = {key: value for key, value in options.items() if key in metric.options}
        yield metric.with_options(**own) if own else metric


def _named(name: str) -> tuple[Metric, ...]:
    metrics, of_groups = available(), groups()
    if name in of_groups:
        return of_groups[name]
    if name in metrics:
        return (metrics[name],)
    known = [*of_groups, *metrics]
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {_listed(known)}"
    raise UnknownMetricError(f"no metric {name!r}; {hint}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
