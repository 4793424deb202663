"""A comparison in a process of its own, slow enough to be killed in the middle of it."""

from __future__ import annotations

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


def main(out: str) -> None:
    backend = SlowBackend()
    methods = [
        Slow(backend, steps=4),
        Complement(backend, steps=4),
        "center",
        "random",
        "shuffled-word",
    ]
    print("ready", flush=True)
    compare(backend, methods, out=out, n=10, calibration=6, progress=False)


if __name__ == "__main__":
    main(sys.argv[1])
