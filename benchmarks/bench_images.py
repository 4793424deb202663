"""How many times as fast eight images are explained side by side as one after the other.

``python benchmarks/bench_images.py``: CPU seconds of one thread (on a GPU, seconds of the wall),
rounds in turn: the median ratio, with the lowest and highest, and the largest difference of the
maps, relative to the largest value of each.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

import wordlight
from wordlight.attribution import AttributionMaps, TextImageAttributor
from wordlight.attribution.registry import available
from wordlight.backends import Backend, Trajectory

PROMPTS = (
    "a red circle to the left of a blue square",
    "a large orange square to the left of a small purple circle on a white background",
    "a green triangle",
    "a yellow circle above a black triangle on a gray background",
)
#: The methods, and the number of steps that each looks at.
METHODS = {
    "daam": 4,
    "self-attention-refined": 4,
    "occlusion": 2,
    "input-x-gradient": 1,
}


def main() -> None:
    """Print a line for each method."""
    options = _options()
    if options.device == "cpu":
        torch.set_num_threads(1)
    model = wordlight.load("scenes", framework="torch", device=options.device)
    prompts = [PROMPTS[k % len(PROMPTS)] for k in range(options.images)]
    drawn = model.sample(prompts, seed=3, steps=8)
    runs = [drawn] if isinstance(drawn, Trajectory) else drawn
    print(f"{options.images} images of scenes on {model.device}, torch {torch.__version__}")
    for name in options.methods:
        method = available()[name](model, steps=METHODS[name])
        ratios, off = [], 0.0
        method.attribute(runs[:2])
        for _ in range(options.rounds):
            apart, alone = _timed(partial(_one_by_one, method, runs), model)
            shared, together = _timed(partial(_side_by_side, method, runs), model)
            ratios.append(apart / shared)
            off = max(off, _difference(alone, together))
        print(
            f"{name}, {METHODS[name]} steps: {statistics.median(ratios):.2f} times as fast "
            f"({min(ratios):.2f} to {max(ratios):.2f}), maps off by {off:.1e}"
        )


def _one_by_one(method: TextImageAttributor, runs: Sequence[Trajectory]) -> list[AttributionMaps]:
    return [method.attribute(run) for run in runs]


def _side_by_side(method: TextImageAttributor, runs: Sequence[Trajectory]) -> list[AttributionMaps]:
    return method.attribute(runs)


def _timed(
    work: Callable[[], list[AttributionMaps]], model: Backend
) -> tuple[float, list[AttributionMaps]]:
    on_gpu = model.device != "cpu"
    clock = time.perf_counter if on_gpu else time.process_time
    started = clock()
    made = work()
    return clock() - started, made


def _difference(one: Sequence[AttributionMaps], other: Sequence[AttributionMaps]) -> float:
    pairs = ((a.data.values, b.data.values) for a, b in zip(one, other, strict=True))
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
