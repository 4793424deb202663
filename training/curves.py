"""Draws the curves of a training run, and says how long it took: see scenes/README.md.

python training/curves.py training/scenes --to docs/images/scenes-training.png
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

STAGES = ("autoencoder", "decoder", "denoiser")
#: A longer pause between two lines is one in which nothing was trained.
PAUSE = 600
_TOLD = ("colour", "shape", "thing", "count", "relation", "ground")


def main() -> None:
    """Read the logs, draw and print."""
    parser = argparse.ArgumentParser(
        description="Draw the curves of a run of `python -m wordlight.backends.training.train` "
        "and print steps and hours of each stage."
    )
    parser.add_argument("run", type=Path, help="folder with the stages' .jsonl files")
    parser.add_argument("--to", type=Path, required=True, help="picture to write (.png)")
    options = parser.parse_args()
    logs = {stage: read(options.run / f"{stage}.jsonl") for stage in STAGES}
    if not logs["denoiser"]:
        parser.error(f"{options.run} has no denoiser.jsonl with anything in it")
    figure = Figure(figsize=(12, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    pictures, losses, following = figure.subplots(1, 3)
    draw_pictures(pictures, logs)
    draw_losses(losses, logs["denoiser"])
    draw_following(following, logs["denoiser"])
    figure.savefig(options.to)
    for stage, lines in logs.items():
        if lines:
            print(f"{stage}: {lines[-1]['step']} steps, {hours(options.run / stage):.1f} hours")


def read(path: Path) -> list[dict[str, Any]]:
    """A log's lines in the order of their steps; of a step done twice, after a stop, the last."""
    if not path.exists():
        return []
    by_step: dict[int, dict[str, Any]] = {}
    for text in path.read_text("utf-8").splitlines():
        line = json.loads(text)
        # What was logged beyond the step from which a run went on is done again.
        if line.get("event") == "resumed":
            by_step = {step: found for step, found in by_step.items() if step <= line["at"]}
        by_step.setdefault(line["step"], {}).update(line)
    return [by_step[step] for step in sorted(by_step)]


def hours(stage: Path) -> float:
    """How long a stage was trained, pauses left out."""
    lines = stage.with_suffix(".jsonl").read_text("utf-8").splitlines()
    times = [json.loads(line)["time"] for line in lines]
    steps = (after - before for before, after in pairwise(times))
    return sum(step for step in steps if step < PAUSE) / 3600


def draw_pictures(axis: Axes, logs: dict[str, list[dict[str, Any]]]) -> None:
    """The error of the autoencoder's pictures, and of the decoder trained further."""
    for stage in ("autoencoder", "decoder"):
        curve(axis, logs[stage], "loss", stage)
    axis.set(title="autoencoder, then its decoder alone", xlabel="step", ylabel="training loss")
    axis.set_yscale("log")
    if axis.lines:
        axis.legend()


def draw_losses(axis: Axes, lines: list[dict[str, Any]]) -> None:
    """The denoiser's losses: in training, and on validation images by timestep."""
    curve(axis, lines, "loss", "training")
    for key in sorted({key for line in lines for key in line if key.startswith("loss@")}):
        curve(axis, lines, key, f"validation, t = {key.removeprefix('loss@')}", marker=".")
    axis.set(title="denoiser", xlabel="step", ylabel="squared error")
    axis.set_yscale("log")
    axis.legend(fontsize=7)


def draw_following(axis: Axes, lines: list[dict[str, Any]]) -> None:
    """The shares of validation prompts that are followed."""
    for key in _TOLD:
        curve(axis, lines, key, key, marker="o")
    axis.set(
        title="64 validation prompts", xlabel="step", ylabel="share that is right", ylim=(0, 1)
    )
    axis.legend(loc="best")


def curve(
    axis: Axes, lines: list[dict[str, Any]], key: str, label: str, marker: str | None = None
) -> None:
    """One value by step."""
    found = [(line["step"], line[key]) for line in lines if key in line]
    if found:
        axis.plot(*zip(*found, strict=True), label=label, marker=marker, linewidth=1)


if __name__ == "__main__":
    main()
