"""Comparisons in processes of their own, which can be killed in the middle of them.

Run as a program it imports what they need once and then forks a process for each that it is asked
for on stdin, so that to be killed often doesn't cost importing often.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from typing import Any, NoReturn

import pytest

from tests.comparisons.fakes import Complement, FakeBackend, Planted
from tests.comparisons.plain_pictures import leave_out_pictures
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


def few(out: str) -> None:
    backend = FakeBackend()
    compare(
        backend,
        [Planted(backend, steps=4), "shuffled-word"],
        out=out,
        n=2,
        calibration=2,
        progress=False,
    )


def scenes(
    out: str,
    n: int,
    calibration: int,
    steps: int,
    methods: list[str],
    budget: int | None = None,
) -> None:
    compare(
        "scenes",
        methods,
        out=out,
        n=n,
        calibration=calibration,
        steps=steps,
        budget=budget,
        progress=False,
    )


def measured(out: str, few: int, many: int) -> None:
    """Prints by how much the peak of the resident memory rises from a run of few images to one of
    many, in bytes. The same process does both, so that what it has once is there for the second."""
    import resource

    backend = FakeBackend()
    methods = [Planted(backend, steps=4), "uniform"]
    peaks = []
    for n in (few, many):
        compare(backend, methods, out=f"{out}/{n}", n=n, calibration=8, progress=False)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    print(json.dumps({"grown": peaks[1] - peaks[0]}), flush=True)


KINDS = {"fakes": fakes, "few": few, "scenes": scenes, "measured": measured}


def die_before_a_file(number: int) -> None:
    """Be killed just before the file ``number`` (from 0) of those that aren't there yet gets its
    name."""
    left = number

    def watch(event: str, arguments: Any) -> None:
        nonlocal left
        if event == "os.rename" and not os.path.exists(arguments[1]):
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(watch)


def child(kind: str, arguments: list[Any], files: int | None) -> NoReturn:
    status = 0
    try:
        if files is not None:
            die_before_a_file(files)
        with pytest.MonkeyPatch.context() as patch:
            if kind in ("fakes", "few"):
                leave_out_pictures(patch)
            KINDS[kind](*arguments)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main() -> None:
    # A first run imports what is imported when it is needed.
    with tempfile.TemporaryDirectory() as folder:
        few(folder)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        kind, arguments, files = json.loads(line)
        if kind == "scenes":
            # Once for all of them.
            import wordlight.backends.torch.backend  # noqa: F401
        pid = os.fork()
        if not pid:
            child(kind, arguments, files)
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"status": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()
