"""How much of the time replays take with several steps in a pass, against one step a pass.

``python benchmarks/bench_replay.py``: CPU seconds of one thread, rounds in turn, the median ratio.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from unittest import mock

import torch

import wordlight
from wordlight.attribution import DAAM, AttentionChains, GramCol, SelfAttentionRefined
from wordlight.backends import backend as backends
from wordlight.backends.torch import backend as torch_backend

ROUNDS = 5
METHODS = (DAAM, SelfAttentionRefined, AttentionChains, GramCol)


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Print a line for each method."""
    torch.set_num_threads(1)
    model = wordlight.load("scenes", framework="torch")
    run = model.sample("a red circle to the left of a blue square", seed=3)
    print(f"scenes, {run.steps} steps, torch {torch.__version__}, one thread of the CPU")
    for kind in METHODS:
        method = kind(model)
        method.attribute(run)
        ratios = []
        for _ in range(ROUNDS):
            together = seconds(lambda method=method: method.attribute(run))
            with (
                mock.patch.object(torch_backend, "_MOST_STEPS", 1),
                mock.patch.object(backends, "_STEPS_AT_ONCE", 1),
            ):
                alone = seconds(lambda method=method: method.attribute(run))
            ratios.append(together / alone)
        print(f"{method.name}: {statistics.median(ratios):.2f} of one step a pass")


if __name__ == "__main__":
    main()
