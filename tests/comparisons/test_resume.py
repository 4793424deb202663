"""A run that is killed goes on where it was, to the same table."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]


def start(out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.comparisons.interrupted_run", str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        stdout=subprocess.PIPE,
        text=True,
    )


def table(out: Path):
    found = pq.read_table(out / "results.parquet").to_pandas()
    return found[found["metric"] != "seconds"].reset_index(drop=True)


def files_in(out: Path) -> set[Path]:
    return {path for path in out.rglob("*") if path.is_file() and path.suffix != ".partial"}


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def test_killed_at_random_moments(tmp_path):
    undisturbed = tmp_path / "undisturbed"
    with start(undisturbed) as process:
        wait_until_ready(process)
        began = time.monotonic()
        assert process.wait(300) == 0
        duration = time.monotonic() - began

    killed = tmp_path / "killed"
    moments = random.Random(0)
    seen = []
    for _ in range(4):
        with start(killed) as process:
            wait_until_ready(process)
            time.sleep(moments.uniform(0.05, 0.3) * duration)
            process.kill()
        seen.append(files_in(killed))
    assert seen[0]
    assert seen[0] < seen[-1], "nothing was kept from one attempt to the next"
    with start(killed) as process:
        assert process.wait(300) == 0

    expected, found = table(undisturbed), table(killed)
    assert len(found) > 500
    assert found.equals(expected)
    assert not list(killed.rglob("*.partial"))
    for path in (undisturbed / "samples").iterdir():
        assert path.read_bytes() == (killed / "samples" / path.name).read_bytes()
