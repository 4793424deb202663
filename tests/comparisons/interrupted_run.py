"""A comparison in a process of its own, slow enough to be killed in the middle of it."""

from __future__ import annotations

import json
import sys
import time

from tests.comparisons.fakes import Complement, FakeBackend, Planted
from wordlight.comparisons import compare


class SlowBackend(FakeBackend):
    def _draw(self, prompt, seed):
        time.sleep(0.02)
        return super()._draw(prompt, seed)


class Slow(Planted):
    def _attribute(self, *arguments):
        time.sleep(0.05)
        return super()._attribute(*arguments)


def fakes(out: str) -> None:
    backend = SlowBackend()
    methods = [
        Slow(backend, steps=4),
        Complement(backend, steps=4),
        "center",
        "random",
        "shuffled-word",
    ]
    compare(backend, methods, out=out, n=12, calibration=6, progress=False)


def scenes(out: str, n: int, methods: list[str]) -> None:
    compare("scenes", methods, out=out, n=n, calibration=16, progress=False)


def measured(out: str, n: int) -> None:
    """Prints by how much the peak of the resident memory is above what it was once all was
    imported and warm, in bytes."""
    import resource

    backend = FakeBackend()
    methods = [Planted(backend, steps=4), "uniform"]
    compare(backend, methods, out=f"{out}-warm", n=8, calibration=8, progress=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    compare(backend, methods, out=out, n=n, calibration=8, progress=False)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, flush=True)


if __name__ == "__main__":
    kind, *arguments = json.loads(sys.argv[1])
    if kind != "measured":
        print("ready", flush=True)
    {"fakes": fakes, "scenes": scenes, "measured": measured}[kind](*arguments)
