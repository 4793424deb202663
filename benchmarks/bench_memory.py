"""Whether a run's memory grows with the number of its images, and how much the machine needs.

    python benchmarks/bench_memory.py --images 50 500

Runs comparisons on the embedded model, each in a process of its own, and prints the peak of its
resident memory, and by how much it is above the peak of a run of 8 images in the same process, when
everything was imported and warm.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

MIB = 2**20


def peak() -> int:
    """In bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(images: int, methods: list[str]) -> None:
    """Run in this process, and print the figures."""
    from wordlight.backends import load
    from wordlight.comparisons import compare

    backend = load("scenes", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        for name, n in (("warm", 8), ("measured", images)):
            before = peak()
            compare(
                backend,
                methods,
                out=Path(folder) / name,
                n=n,
                calibration=8,
                steps=1,
                progress=False,
            )
    print(f"{images:6}  {peak() / MIB:8.0f}  {(peak() - before) / MIB:8.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[50, 500])
    parser.add_argument("--method", action="append", help="repeatable (default: daam, uniform)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    methods = asked.method or ["daam", "uniform"]
    if asked.here:
        measure(asked.images[0], methods)
        return
    print("images  peak MiB  above 8 images")
    for images in asked.images:
        command = [sys.executable, __file__, "--here", "--images", str(images)]
        for method in methods:
            command += ["--method", method]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
