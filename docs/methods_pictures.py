"""The picture on each method's page: two words' maps on three images."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wordlight.attribution.attributor import TextImageAttributor
from wordlight.backends.backend import Backend
from wordlight.backends.trajectory import Trajectory

#: What every method is shown on: a prompt, its image's seed, the words.
SHOWN = (
    ("a red circle and a blue square on a white background", 1, ("circle", "square")),
    ("two green triangles on a black background.", 0, ("green", "triangles")),
    ("a yellow cross to the left of a purple circle on a gray background", 2, ("cross", "circle")),
)


def shown(backend: Backend) -> list[Trajectory]:
    """The images."""
    return [backend.sample(prompt, seed=seed) for prompt, seed, _ in SHOWN]


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
        cells[first].set_title(fill(prompt.split(" on ")[0], 24), fontsize=6, loc="left")
        for cell, word in zip(cells[first + 1 : first + 3], words, strict=True):
            cell.imshow(np.asarray(maps[word].overlay()))
            cell.set_title(word, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
