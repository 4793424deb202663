"""Seconds and memory of drawing an image, and of all words' maps of it, on any device.

    python benchmarks/bench_methods.py               # scenes, on a GPU where there is one
    python benchmarks/bench_methods.py --model sd15 --dtype float16
    python benchmarks/bench_methods.py --table rows  # what a row of a larger pass costs

Medians over rounds, with the lowest and the highest; each round takes all of it in an order drawn
anew. Seconds are the wall's: leave the machine alone.
"""

from __future__ import annotations

import argparse
import math
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from measuring import add_rounds, rounds_of, spread
from models import CONFIGS, backend_of

from wordlight.attribution import registry
from wordlight.backends import Backend, Conditioning
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.results.text_tables import markdown_table
from wordlight.comparisons.rows.row import step_options

PROMPT = "a red circle to the left of two small blue squares on a black background"
METHODS = ("daam", "self-attention-refined", "occlusion", "input-x-gradient")
ROWS = (1, 2, 4, 8, 16, 32)
#: What can be printed.
TABLES = ("methods", "rows")


def drawn(backend: Backend, steps: int, side: int | None) -> Trajectory:
    """An image of ``PROMPT``."""
    return backend.sample(PROMPT, seed=3, steps=steps, height=side, width=side)


def of_methods(
    backend: Backend,
    run: Trajectory,
    names: list[str],
    steps: int,
    rounds: int,
    within: float = math.inf,
) -> list[list[str]]:
    """Lines of a table: drawing, then each method at some steps, DAAM at all of them too."""
    asked = {f"{name}, {steps} steps": (name, steps) for name in names}
    if "daam" in names:
        asked["daam, every step"] = ("daam", run.steps)
    methods = {}
    for label, (name, count) in asked.items():
        kind = registry.get(name)
        methods[label] = kind(backend, **step_options(kind, count))
    costs = {label: method.attribute(run).provenance for label, method in methods.items()}
    works: dict[str, Callable[[], object]] = {
        "drawing an image": lambda: drawn(backend, run.steps, run.image.shape[0])
    }
    works |= {label: lambda m=method: m.attribute(run) for label, method in methods.items()}
    lines = [["what", "median s", "lowest", "highest", "forward-eq.", "peak MiB"]]
    for label, values in rounds_of(works, rounds, within=within).items():
        told = costs.get(label)
        passes = "" if told is None else str(told.forward_equivalents)
        peak = "" if told is None or told.peak_bytes is None else f"{told.peak_bytes / 2**20:.0f}"
        lines.append([label, *spread(values), passes, peak])
    return lines


def of_rows(
    backend: Backend, run: Trajectory, rounds: int, within: float = math.inf
) -> list[list[str]]:
    """Lines of a table: milliseconds of a row in passes of so many."""
    works: dict[str, Callable[[], object]] = {}
    for n in ROWS:
        latents = backend.asarray(np.repeat(run.latents[:1], n, axis=0))
        text = Conditioning(backend.asarray(np.repeat(run.embeddings[None], n, axis=0)))

        def work(latents: object = latents, text: Conditioning = text) -> None:
            with backend.no_gradients():
                backend.to_numpy(backend.denoise(latents, float(run.timesteps[0]), text))

        works[str(n)] = work
    lines = [["rows of a pass", "median ms a row", "lowest", "highest"]]
    for n, values in rounds_of(works, rounds, within=within).items():
        lines.append([n, *spread([1000 * value / int(n) for value in values])])
    return lines


def versions(backend: Backend) -> str:
    """What it was measured on and with, in a line."""
    found = [f"Python {platform.python_version()}"]
    for package in ("torch", "diffusers", "jax"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    device = backend.device
    if device.startswith("cuda") and backend.framework == "torch":
        import torch

        device = torch.cuda.get_device_name()
    precision = f", precision {backend.precision}" if backend.precision else ""
    return f"{backend!r} ({device}{precision}); {', '.join(found)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        default="scenes",
        help=f"{' or '.join(CONFIGS)}, of random weights, or as `load` takes it (scenes)",
    )
    parser.add_argument("--framework", choices=("torch", "flax"))
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    parser.add_argument("--precision", choices=("highest", "high"))
    parser.add_argument("--method", action="append", help=f"repeatable ({', '.join(METHODS)})")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps (20)")
    parser.add_argument("--seen", type=int, default=4, help="steps that methods look at (4)")
    parser.add_argument("--side", type=int, help="pixels (the model's own)")
    add_rounds(parser, 5)
    parser.add_argument(
        "--table", action="append", choices=TABLES, help=f"repeatable ({TABLES[0]})"
    )
    asked = parser.parse_args()
    options = {
        name: getattr(asked, name)
        for name in ("framework", "device", "dtype", "precision")
        if getattr(asked, name) is not None
    }
    backend = backend_of(asked.model, **options)
    run = drawn(backend, asked.steps, asked.side)
    height, width = run.image.shape[:2]
    print(f"{asked.model}: {versions(backend)}; {width} x {height} pixels, {run.steps} steps")
    limits = (asked.rounds, asked.within)
    for table in asked.table or TABLES[:1]:
        if table == "rows":
            lines = of_rows(backend, run, *limits)
        else:
            lines = of_methods(backend, run, asked.method or list(METHODS), asked.seen, *limits)
        print(f"\n{markdown_table(lines)}", flush=True)


if __name__ == "__main__":
    main()
