"""Cross-framework parity: how far apart are the maps that two backends of one model give?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from wordlight.attribution import registry
from wordlight.attribution.attributor import TextImageAttributor
from wordlight.backends.arrays_file import write_atomically
from wordlight.backends.backend import Backend
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.datasets.images.generated_scenes import GeneratedScenes
from wordlight.comparisons.rows.row import SHUFFLED, step_options
from wordlight.comparisons.runs.options import TEXT, TEXTS, option, options
from wordlight.comparisons.studies.study import (
    Study,
    methods_named,
    number_of,
    seed_of,
    steps_looked_at,
)
from wordlight.comparisons.wording import counted

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Difference:
    """The difference of one method's maps at one step, over all images, players and pixels.

    Attributes:
        method: its name.
        step: its number in the trajectory, from 0; None for a method that looks at none by itself.
        timestep: the denoiser's timestep there.
        largest, median: absolute differences, in the maps' own units.
        largest_relative, median_relative: the same as shares of the largest absolute value that
            the image's maps have on the first framework.
    """

    method: str
    step: int | None
    timestep: float | None
    largest: float
    median: float
    largest_relative: float
    median_relative: float


@dataclass(frozen=True)
class Parity:
    """The findings of the study.

    Attributes:
        model, revision: its name, and what stands for its weights.
        frameworks: the one that the trajectories were sampled on, and the other.
        devices, dtypes: of each.
        images: the number of trajectories.
        differences: one a method and step.
        left_out: methods that weren't run, with the reason.
    """

    model: str
    revision: str | None
    frameworks: tuple[str, str]
    devices: tuple[str, str]
    dtypes: tuple[str, str]
    images: int
    differences: tuple[Difference, ...]
    left_out: dict[str, str]

    @property
    def text(self) -> str:
        images = counted(self.images, "image")
        title = f"{self.model}, {images}: differences between maps on torch and on flax"
        left_out = [f"left out: {name} ({reason})" for name, reason in self.left_out.items()]
        table = [HEADINGS, *rows(self)]
        widths = [max(len(row[column]) for row in table) for column in range(len(HEADINGS))]
        lines = []
        for row in table:
            cells = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
            lines.append("  ".join([row[0].ljust(widths[0]), *cells]))
        return "\n".join([title, "", *lines, *left_out])

    def to_json(self) -> dict[str, Any]:
        """Plain data; infinite numbers, of a map of zeros that isn't met by zeros, are null."""
        data = asdict(self)
        for one in data["differences"]:
            one |= {k: None for k, v in one.items() if isinstance(v, float) and not np.isfinite(v)}
        return data


def runnable(
    backends: tuple[Backend, Backend], methods: Sequence[str] | None = None
) -> tuple[list[str], dict[str, str]]:
    """The methods that both backends can run, and why the others can't be.

    Of methods that were named, one that can't run is an error.

    Raises:
        ValueError: an unknown method, or one that has no maps of its own.
        MissingCapabilityError: a method that was named needs what a backend hasn't.
    """
    if methods is not None:
        for name in methods:
            if name == SHUFFLED:
                raise ValueError(f"{SHUFFLED} takes another method's maps: it has none to compare")
            for backend in backends:
                backend.require(registry.get(name).needs, name)
        return list(dict.fromkeys(methods)), {}
    kept, left_out = [], {SHUFFLED: "it takes another method's maps"}
    for name, kind in registry.available().items():
        missing = {b.framework: sorted(kind.needs - b.capabilities) for b in backends}
        lacking = [f"{where} has no {', '.join(what)}" for where, what in missing.items() if what]
        if lacking:
            left_out[name] = "; ".join(lacking)
        elif name != SHUFFLED:
            kept.append(name)
    return kept, left_out


def study_parity(
    backends: tuple[Backend, Backend],
    methods: Sequence[str] | None = None,
    *,
    prompts: Sequence[str] | None = None,
    n: int = 2,
    steps: int = 4,
    seed: int = 0,
    on_cell: Callable[[int], object] = lambda count: None,
) -> Parity:
    """Sample on the first backend, attribute the same trajectories on both, and compare the maps.

    Args:
        backends: of the same model.
        methods: names; all that both can run where None.
        prompts: of the images, over and over; of the model's test split where None.
        n: the number of images.
        steps: the number of evenly spaced steps, each by itself.
        seed: of the first image's noise; image number k has ``seed + k``.
        on_cell: called after each method and step.

    Raises:
        ValueError: two different models, an unknown method, a bad number.
        MissingCapabilityError: a method that was named needs what a backend hasn't.
    """
    one, two = backends
    if (one.model_id, one.revision) != (two.model_id, two.revision):
        raise ValueError(
            f"parity is between two backends of one model, not of {one.model_id} ({one.revision}) "
            f"and {two.model_id} ({two.revision})"
        )
    names, left_out = runnable(backends, methods)
    texts = list(prompts or GeneratedScenes(one, "test", n).prompts)
    drawn = [one.sample(texts[k % len(texts)], seed=seed + k) for k in range(n)]
    found = []
    for name in names:
        kind = registry.get(name)
        for step in looked_at(kind, drawn[0], steps):
            found.append(_difference(name, kind, backends, drawn, step))
            on_cell(1)
    return Parity(
        model=one.model_id,
        revision=one.revision,
        frameworks=(one.framework, two.framework),
        devices=(one.device, two.device),
        dtypes=(one.dtype, two.dtype),
        images=n,
        differences=tuple(found),
        left_out=left_out,
    )


def looked_at(
    kind: type[TextImageAttributor], trajectory: Trajectory, steps: int
) -> tuple[int | None, ...]:
    """The steps at which a method is asked: only None for one that looks at none by itself."""
    return trajectory.at_steps(steps) if step_options(kind, steps) else (None,)


def _difference(
    name: str,
    kind: type[TextImageAttributor],
    backends: tuple[Backend, Backend],
    trajectories: Sequence[Trajectory],
    step: int | None,
) -> Difference:
    options = {} if step is None else {"steps": (step,)}
    apart: list[Floats] = []
    relative: list[Floats] = []
    for trajectory in trajectories:
        first, second = (
            kind(backend, **options).attribute(trajectory).data.values.astype(np.float64)
            for backend in backends
        )
        difference = np.abs(first - second)
        apart.append(difference.ravel())
        # Maps of zeros are matched by zeros alone. Those of one word may be nearly that (padding
        # that changes nothing), so that a share of its own largest value would be a share of noise.
        height = np.abs(first).max()
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(difference == 0, 0.0, difference / height)
        relative.append(share.ravel())
    every, shares = np.concatenate(apart), np.concatenate(relative)
    return Difference(
        method=name,
        step=step,
        timestep=None if step is None else float(trajectories[0].timesteps[step]),
        largest=float(every.max()),
        median=float(np.median(every)),
        largest_relative=float(shares.max()),
        median_relative=float(np.median(shares)),
    )


HEADINGS = (
    "method",
    "step",
    "timestep",
    "largest",
    "median",
    "largest, relative",
    "median, relative",
)


def rows(parity: Parity) -> list[tuple[str, ...]]:
    """The table under ``HEADINGS``."""
    return [
        (
            one.method,
            "–" if one.step is None else str(one.step),
            "–" if one.timestep is None else f"{one.timestep:g}",
            *(
                f"{value:.1e}"
                for value in (one.largest, one.median, one.largest_relative, one.median_relative)
            ),
        )
        for one in parity.differences
    ]


def write_parity(folder: Path, parity: Parity) -> None:
    """Write ``parity.html``: one page that needs no other file."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = (files("wordlight.comparisons.results.html") / "page.css").read_text("utf-8")
    page = environment.from_string(_PAGE).render(
        parity=parity, headings=HEADINGS, rows=rows(parity), style=Markup(style)
    )
    write_atomically(folder / "parity.html", page.encode("utf-8", "replace"))


@options
class ParityOptions(Study):
    """The study as a command."""

    name = "parity"
    line = "how far apart PyTorch's and Flax's maps of the same images are, method by method"
    left_out = ("framework",)
    epilog = """\
Images are sampled on PyTorch; both frameworks then explain the same latents, so that what differs
is the computation alone. Columns: the largest and the median difference between the maps' values,
in the maps' own units, and the same relative to the largest value of an image's maps on PyTorch. In
float32 on a CPU, relative differences of the order of 1e-6 to 1e-4 are rounding.

examples:
  wordlight study parity scenes --method daam --method occlusion --steps 2 -o out/parity
  wordlight study parity path/to/sd-1.5 --scheduler ddim --prompt "a dog and a cat" -o out/parity
"""

    model: str = option(
        replace(TEXT, flag={"nargs": "?"}),
        "a model as other commands take by --model: scenes (default), a folder or a Hub id",
        default="scenes",
        flags=("model",),
        metavar="MODEL",
    )
    method: Sequence[str] | None = methods_named("every installed one that both can run")
    prompt: Sequence[str] | None = option(
        TEXTS,
        "a prompt of the images, repeatable (default: what the model was trained on, "
        "else coloured shapes)",
        default=None,
        metavar="TEXT",
    )
    n: int = number_of("images", 2)
    steps: int = steps_looked_at()
    seed: int = seed_of()

    def find(self) -> Parity:
        one, two = self.load("torch"), self.load("flax")
        runnable((one, two), self.method)  # before anything is drawn
        with self.bar("comparing maps", None, "steps") as bar:
            return study_parity(
                (one, two),
                self.method,
                prompts=self.prompt,
                n=self.n,
                steps=self.steps,
                seed=self.seed,
                on_cell=bar.update,
            )

    def write(self, out: Path, found: Parity) -> None:
        write_parity(out, found)


_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'">
<title>Parity: {{ parity.model }}</title>
<style>
{{ style }}
</style>
</head>
<body>
<h1>{{ parity.model }}: maps on {{ parity.frameworks[0] }} and on {{ parity.frameworks[1] }}</h1>
<p>{% if parity.revision %}
Revision {{ parity.revision }}.
{% endif %}
{{ parity.images }} {{ "image" if parity.images == 1 else "images" }} sampled on
{{ parity.frameworks[0] }} ({{ parity.devices[0] }}, {{ parity.dtypes[0] }}); the same trajectories
attributed there and on {{ parity.frameworks[1] }} ({{ parity.devices[1] }},
{{ parity.dtypes[1] }}), each step by itself.</p>
<div class="wide">
<table>
<thead><tr>
{% for heading in headings %}
<th scope="col"{{ ' class="name"'|safe if loop.first }}>{{ heading }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in rows %}
<tr>
{% for cell in row %}
<td{{ ' class="name"'|safe if loop.first }}>{{ cell }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
<p class="soft">Differences are over all images, words and pixels: in the maps' own units, and
relative to the largest value of an image's maps on {{ parity.frameworks[0] }}. Float32 rounding is
of the order of 1e-6 of a prediction; methods that difference or divide predictions have more.</p>
{% if parity.left_out %}
<h2>Left out</h2>
<ul>
{% for name, reason in parity.left_out.items() %}
<li>{{ name }}: {{ reason }}</li>
{% endfor %}
</ul>
{% endif %}
</body>
</html>
"""
