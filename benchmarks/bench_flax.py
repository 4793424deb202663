"""Traced sampling on Flax, compiled, against PyTorch, eager: the same weights, noise and maps.

Ratios within one run on one machine; the rounds alternate, so that both see the same load.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import torch
from bench_tracing import PROMPT, narrow_pipeline

from wordlight.attribution import DAAM
from wordlight.backends import Backend, load, trace


def traced(backend: Backend, steps: int, side: int) -> tuple[float, np.ndarray]:
    """Seconds of a run with its maps, and the maps."""
    started = time.perf_counter()
    with trace(backend) as record:
        backend.sample(PROMPT, seed=0, steps=steps, height=side, width=side)
    maps = DAAM.from_trace(record).data.values
    return time.perf_counter() - started, maps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds (5)")
    parser.add_argument("--steps", type=int, default=10, help="denoising steps a round (10)")
    parser.add_argument("--side", type=int, default=256, help="pixels a side (256)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        narrow_pipeline().save_pretrained(folder)
        ours, theirs = (load(Path(folder), framework=name) for name in ("flax", "torch"))
    first, our_maps = traced(ours, options.steps, options.side)
    _, their_maps = traced(theirs, options.steps, options.side)
    times = [
        [traced(backend, options.steps, options.side)[0] for backend in (ours, theirs)]
        for _ in range(options.rounds)
    ]
    flax, eager = (statistics.median(column) for column in zip(*times, strict=True))
    ratios = [a / b for a, b in times]
    result = {
        "flax/torch": round(statistics.median(ratios), 3),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
        "rounds": options.rounds,
        "flax seconds": round(flax, 2),
        "torch seconds": round(eager, 2),
        "compiling, seconds": round(first - flax, 1),
        "largest difference of maps": float(np.abs(our_maps - their_maps).max()),
        "devices": f"{ours.device}, {theirs.device}",
        "torch threads": torch.get_num_threads(),
        "jax, torch": f"{jax.__version__}, {torch.__version__}",
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"Traced sampling, {options.steps} steps at {options.side} px, Flax against PyTorch:")
    for name, value in result.items():
        print(f"  {name:30} {value}")


if __name__ == "__main__":
    main()
