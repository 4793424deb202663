"""Seconds and memory of drawing an image, and of all words' maps of it, on any device.

    python benchmarks/bench_methods.py         # scenes, on a GPU where there is one
    python benchmarks/bench_methods.py --model FOLDER --dtype float16 --steps 50
    python benchmarks/bench_methods.py --rows  # what a row of a larger pass costs

Medians over rounds, with the lowest and the highest; each round takes all of it in an order drawn
anew. Seconds are the wall's: leave the machine alone.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from wordlight.attribution import registry
from wordlight.backends import Backend, Conditioning, load
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.results.text_tables import markdown_table
from wordlight.comparisons.rows.row import step_options

PROMPT = "a red circle to the left of two small blue squares on a black background"
METHODS = ("daam", "self-attention-refined", "occlusion", "input-x-gradient")
ROWS = (1, 2, 4, 8, 16, 32)


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds of a call whose answer is on the host when it ends."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rounds_of(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """The seconds of each work in each round, after one that isn't counted."""
    for work in works.values():
        work()
    order, found = random.Random(0), {name: [] for name in works}
    for _ in range(rounds):
        for name in order.sample(list(works), k=len(works)):
            found[name].append(seconds_of(works[name]))
    return found


def spread(values: list[float]) -> list[str]:
    """Median, lowest and highest."""
    return [f"{one:.3f}" for one in (statistics.median(values), min(values), max(values))]


def of_methods(
    backend: Backend, run: Trajectory, names: list[str], steps: int, rounds: int
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
        "drawing an image": lambda: backend.sample(PROMPT, seed=3, steps=run.steps)
    }
    works |= {label: lambda m=method: m.attribute(run) for label, method in methods.items()}
    lines = [["what", "median s", "lowest", "highest", "forward-eq.", "peak MiB"]]
    for label, values in rounds_of(works, rounds).items():
        told = costs.get(label)
        passes = "" if told is None else str(told.forward_equivalents)
        peak = "" if told is None or told.peak_bytes is None else f"{told.peak_bytes / 2**20:.0f}"
        lines.append([label, *spread(values), passes, peak])
    return lines


def of_rows(backend: Backend, run: Trajectory, rounds: int) -> list[list[str]]:
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
    for n, values in rounds_of(works, rounds).items():
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
    parser.add_argument("--model", default="scenes", help="as `load` takes it (scenes)")
    parser.add_argument("--framework", choices=("torch", "flax"))
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    parser.add_argument("--precision", choices=("highest", "high"))
    parser.add_argument("--method", action="append", help=f"repeatable ({', '.join(METHODS)})")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps (20)")
    parser.add_argument("--seen", type=int, default=4, help="steps that methods look at (4)")
    parser.add_argument("--rounds", type=int, default=5, help="(5)")
    parser.add_argument("--rows", action="store_true", help="what a row of a larger pass costs")
    asked = parser.parse_args()
    options = {
        name: getattr(asked, name)
        for name in ("framework", "device", "dtype", "precision")
        if getattr(asked, name) is not None
    }
    backend = load(asked.model, **options)
    run = backend.sample(PROMPT, seed=3, steps=asked.steps)
    print(versions(backend) + "\n")
    if asked.rows:
        print(markdown_table(of_rows(backend, run, asked.rounds)))
    else:
        names = asked.method or list(METHODS)
        print(markdown_table(of_methods(backend, run, names, asked.seen, asked.rounds)))


if __name__ == "__main__":
    main()
