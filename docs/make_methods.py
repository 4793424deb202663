"""Makes the pictures and numbers of ``docs/methods``: run by ``make methods``."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from textwrap import fill as fill_text
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from wordlight.attribution import registry
from wordlight.attribution.attributor import TextImageAttributor
from wordlight.backends import load
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.entries import step_options

DOCS = Path(__file__).parent
#: What every method is shown on: a prompt, its image's seed, the words.
SHOWN = (
    ("a red circle and a blue square on a white background", 1, ("circle", "square")),
    ("two green triangles on a black background.", 0, ("green", "triangles")),
    ("a yellow cross to the left of a purple circle on a gray background", 2, ("cross", "circle")),
)
_STEPS = 4


def main() -> None:
    """Make the pictures, then write the numbers into the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "compare", type=Path, nargs="+", help="comparisons' folders, the one of all methods first"
    )
    parser.add_argument("--sanity", type=Path, required=True, help="a sanity study's folder")
    options = parser.parse_args()
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in options.compare]
    summary = summaries[0]
    known = {row["method"] for row in summary["headline"]}
    for other in summaries[1:]:
        if (other["n"], other["seed"], other["steps"]) != tuple(
            summary[key] for key in ("n", "seed", "steps")
        ):
            raise ValueError("the comparisons are of other images or steps than the first one")
        summary["headline"] += [row for row in other["headline"] if row["method"] not in known]
    settings = json.loads((options.compare[0] / "settings.json").read_text())
    sanity = {c["method"]: c for c in json.loads((options.sanity / "sanity.json").read_text())}
    methods = {n: k for n, k in registry.available().items() if k.family != "control"}
    backend = load("scenes")
    trajectories = [backend.sample(prompt, seed=seed) for prompt, seed, _ in SHOWN]
    for name, kind in tqdm(methods.items(), desc="pictures"):
        method = kind(backend, **step_options(kind, _STEPS))
        draw(DOCS / "images" / "methods" / f"{name}.png", method, trajectories)
    for name in methods:
        fill(DOCS / "methods" / f"{name}.md", "scores", scores(name, summary, sanity))
    fill(DOCS / "methods" / "README.md", "table", table(methods, summary, settings, sanity))


def draw(path: Path, method: TextImageAttributor, trajectories: list[Trajectory]) -> None:
    """Each image with two words' maps over it, side by side."""
    columns = 3 * len(SHOWN)
    figure = Figure(figsize=(columns * 1.35, 1.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    cells = figure.subplots(1, columns)
    for cell in cells:
        cell.axis("off")
    for index, (trajectory, (prompt, _, words)) in enumerate(zip(trajectories, SHOWN, strict=True)):
        maps = method.attribute(trajectory)
        first = 3 * index
        cells[first].imshow(trajectory.image, interpolation="nearest")
        cells[first].set_title(fill_text(prompt.split(" on ")[0], 24), fontsize=6, loc="left")
        for cell, word in zip(cells[first + 1 : first + 3], words, strict=True):
            cell.imshow(np.asarray(maps[word].overlay()))
            cell.set_title(word, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def estimate(summary: dict[str, Any], method: str, metric: str) -> dict[str, Any] | None:
    """A method's estimate of a metric, where the comparison has it."""
    for row in summary["headline"]:
        if (row["method"], row["metric"]) == (method, metric) and row["mean"] is not None:
            found: dict[str, Any] = row
            return found
    return None


def interval(row: dict[str, Any] | None) -> str:
    """An estimate in words."""
    if row is None:
        return "not measured"
    if row["low"] is None:
        return f"{row['mean']:.3f}"
    return f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def survival(sanity: dict[str, Any], method: str) -> str:
    """What is left of a method's maps under a random model."""
    if method not in sanity:
        return "not measured"
    last = sanity[method]["similarity"][-1]["mean"]
    return f"{last:+.2f}" + (
        "" if sanity[method]["depends_on_model"] else " (does not depend on the model)"
    )


def scores(name: str, summary: dict[str, Any], sanity: dict[str, Any]) -> str:
    """The block of numbers of one method's page."""
    cost = estimate(summary, name, "forward-equivalents")
    lines = [
        "| mIoU@best, shape nouns [95 %] | the same of `shuffled-word` | pointing game | AP "
        "| forward-equivalents an image | rank correlation with a random model's map |",
        "|---|---|---|---|---|---|",
        "| "
        + " | ".join(
            [
                interval(estimate(summary, name, "miou@best")),
                interval(estimate(summary, f"shuffled-word.{name}", "miou@best")),
                interval(estimate(summary, name, "pointing-game")),
                interval(estimate(summary, name, "ap")),
                f"{cost['mean']:.0f}" if cost else "not measured",
                survival(sanity, name),
            ]
        )
        + " |",
    ]
    return "\n".join(lines)


def table(
    methods: dict[str, type[TextImageAttributor]],
    summary: dict[str, Any],
    settings: dict[str, Any],
    sanity: dict[str, Any],
) -> str:
    """All methods, best first."""

    def rank(name: str) -> float:
        row = estimate(summary, name, "miou@best")
        return -row["mean"] if row else 1.0

    lines = [
        "| method | family | signed | mIoU@best, shape nouns [95 %] | of another object's word "
        "| forward-eq. | under a random model |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in sorted(methods, key=rank):
        kind = methods[name]
        cost = estimate(summary, name, "forward-equivalents")
        cells = [
            f"[`{name}`]({name}.md)",
            kind.family,
            "yes" if kind.signed else "no",
            interval(estimate(summary, name, "miou@best")),
            interval(estimate(summary, f"shuffled-word.{name}", "miou@best")),
            f"{cost['mean']:.0f}" if cost else "-",
            survival(sanity, name),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    norm = estimate(summary, "guidance-norm", "miou@best")
    kept = norm["n"] if norm else 0
    budget = settings["settings"].get("budget")
    lines += [
        "",
        f"{summary['n']} test images of `scenes`, {kept} headline words (shape nouns in images of "
        "two or more objects); thresholds chosen on images of their own; every method at the same "
        f"{len(summary['steps'])} steps"
        + (
            f" and with as much effort as {budget} forward-equivalents an image pay for (but "
            "`regeneration`, whose cost is what it is)"
            if budget
            else ""
        )
        + f". The control `guidance-norm` has {interval(norm)}, `center` "
        f"{interval(estimate(summary, 'center', 'miou@best'))}, the ceiling is "
        f"{summary['ceiling']['miou@best']:.3f}. The last column is the rank correlation of a "
        "method's maps with those of the same denoiser with random weights.",
    ]
    return "\n".join(lines)


def fill(path: Path, mark: str, text: str) -> None:
    """Put a text between a page's two marks; raises ValueError where the page hasn't them."""
    page = path.read_text()
    pattern = re.compile(f"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"{path} has no <!-- {mark} --> ... <!-- /{mark} -->")
    path.write_text(pattern.sub(lambda m: f"{m[1]}{text}\n{m[2]}", page))


if __name__ == "__main__":
    main()
