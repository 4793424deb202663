"""Traced sampling and gradients on Flax, compiled, against PyTorch, eager, of the same weights.

Ratios within one run on one machine; each round takes all in an order drawn anew. The first call
compiles, or loads what an earlier process compiled; ``WORDLIGHT_JAX_CACHE=0`` has it compile.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import torch
from bench_tracing import PROMPT
from measuring import Report, add_rounds, rounds_of
from models import CONFIGS, backend_of

from wordlight.attribution import DAAM, InputXGradient
from wordlight.backends import Backend, trace

#: What is measured.
WORKS = ("sampling", "gradients")


def traced(backend: Backend, steps: int, side: int) -> np.ndarray:
    """Maps of a run while it is drawn."""
    with trace(backend) as record:
        backend.sample(PROMPT, seed=0, steps=steps, height=side, width=side)
    return DAAM.from_trace(record).data.values


def gradients_of(backend: Backend, steps: int, side: int) -> Callable[[], np.ndarray]:
    """A call that makes the maps of input times gradient, at one step."""
    run = backend.sample(PROMPT, seed=0, steps=steps, height=side, width=side)
    return lambda: InputXGradient(backend, steps=1).attribute(run).data.values


def first_call(backend: Backend, work: Callable[[], np.ndarray]) -> dict[str, Any]:
    """Seconds and peak of a work's first call, and its maps."""
    backend.reset_peak_bytes()
    started = time.perf_counter()
    maps = work()
    seconds, peak = time.perf_counter() - started, backend.peak_bytes()
    return {"seconds": seconds, "peak": peak, "maps": maps}


def compared(
    backends: dict[str, Backend],
    works: dict[str, Callable[[], np.ndarray]],
    rounds: int,
    within: float,
) -> dict[str, Any]:
    """The times of a work on both frameworks, and how far its maps differ."""
    firsts = {name: first_call(backends[name], work) for name, work in works.items()}
    found = rounds_of(works, rounds, within=within)
    ratios = [a / b for a, b in zip(found["flax"], found["torch"], strict=True)]
    medians = {name: statistics.median(values) for name, values in found.items()}
    told = {
        "flax/torch": round(statistics.median(ratios), 3),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
        "rounds": len(ratios),
    }
    for name, one in firsts.items():
        told[f"{name} seconds"] = round(medians[name], 3)
        told[f"{name}, first call, seconds more"] = round(one["seconds"] - medians[name], 1)
        told[f"{name} peak MiB"] = None if one["peak"] is None else round(one["peak"] / 2**20)
    apart = np.abs(firsts["flax"]["maps"] - firsts["torch"]["maps"]).max()
    scale = np.abs(firsts["torch"]["maps"]).max()
    told["largest difference of maps, of the largest value"] = float(apart / scale)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=CONFIGS, default="narrow", help="(narrow)")
    parser.add_argument("--device", help="(a GPU where there is one)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--work", nargs="+", choices=WORKS, default=WORKS, help="(both)")
    add_rounds(parser, 5)
    parser.add_argument("--steps", type=int, default=10, help="denoising steps a round (10)")
    parser.add_argument("--side", type=int, default=256, help="pixels a side (256)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    where = {"device": options.device, "dtype": options.dtype}
    backends = {
        name: backend_of(options.model, framework=name, **where) for name in ("flax", "torch")
    }
    report = Report(options.json)
    report.tell(
        "model", f"{options.model}, {options.dtype}, {options.steps} steps at {options.side} px"
    )
    report.tell("devices", ", ".join(backend.device for backend in backends.values()))
    report.tell("torch threads", torch.get_num_threads())
    report.tell("jax, torch", f"{jax.__version__}, {torch.__version__}")
    sizes = (options.steps, options.side)
    for work in options.work:
        if work == "sampling":
            works = {name: partial(traced, one, *sizes) for name, one in backends.items()}
        else:
            works = {name: gradients_of(one, *sizes) for name, one in backends.items()}
        report.tell(work, compared(backends, works, options.rounds, options.within))
    report.end()


if __name__ == "__main__":
    main()
