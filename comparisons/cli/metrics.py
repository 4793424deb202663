"""``wordlight metrics``: what maps can be judged by."""

from __future__ import annotations

import argparse
import json

from wordlight.comparisons.cli.arguments import Commands, add_command


def add_to(commands: Commands, line: str) -> None:
    """Add the command, with its line in the overview."""
    parser = add_command(
        commands,
        "metrics",
        line,
        "`wordlight compare --metrics` takes their names, and those of their groups. A package\n"
        "that registers a metric under the entry point group wordlight.metrics is listed here too.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print name, direction, groups, what it is over and what it needs of each metric."""
    # SciPy and pyarrow take seconds to import: not for `--help`.
    from wordlight.comparisons.metrics.registry import available
    from wordlight.comparisons.results.text_tables import aligned

    metrics = available().values()
    if arguments.json:
        facts = [
            {"name": m.name, "groups": m.groups, "needs": sorted(m.needs), **m.facts()}
            for m in metrics
        ]
        print(json.dumps(facts, indent=2))
        return
    lines = [["name", "better", "groups", "over", "needs", "options"]]
    for metric in metrics:
        options = ", ".join(f"{name}={value}" for name, value in metric.options.items())
        lines.append(
            [
                metric.name,
                "higher" if metric.higher_is_better else "lower",
                ", ".join(metric.groups) or "-",
                metric.over,
                ", ".join(sorted(metric.needs)) or "-",
                options or "-",
            ]
        )
    print(aligned(lines, words=True))
