"""A run that is killed goes on where it was, to the same table; its memory doesn't grow."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]

EIGHT = [
    "daam",
    "self-attention-refined",
    "input-x-gradient",
    "occlusion",
    "noise-difference",
    "uniform",
    "center",
    "shuffled-word",
]


def start(*asked: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.comparisons.interrupted_run", json.dumps(asked)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        stdout=subprocess.PIPE,
        text=True,
    )


def table(out: Path):
    found = pq.read_table(out / "results.parquet").to_pandas()
    return found[found["metric"] != "seconds"].reset_index(drop=True)


def files_in(out: Path) -> set[Path]:
    """What is finished: the lock and the note of who holds it are neither cells nor images."""
    return {
        path
        for path in out.rglob("*")
        if path.is_file() and path.suffix != ".partial" and not path.name.startswith(".")
    }


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def killed_and_undisturbed(tmp_path: Path, kills: int, share: float, *asked: object):
    """The folders of a run that was killed so often, each time within a share of its time, and of
    one that wasn't."""
    kind, *rest = asked
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    with start(kind, str(undisturbed), *rest) as process:
        wait_until_ready(process)
        began = time.monotonic()
        assert process.wait(7200) == 0
        duration = time.monotonic() - began
    moments = random.Random(0)
    seen = []
    for _ in range(kills):
        with start(kind, str(killed), *rest) as process:
            wait_until_ready(process)
            time.sleep(moments.uniform(0.02, share) * duration)
            process.kill()
        seen.append(files_in(killed))
    assert seen[-1]
    assert seen[0] < seen[-1], "nothing was kept from one attempt to the next"
    # Nothing that was finished is lost, however the run ends.
    assert all(before <= after for before, after in pairwise(seen))
    with start(kind, str(killed), *rest) as process:
        assert process.wait(7200) == 0
    return killed, undisturbed


def check_same(killed: Path, undisturbed: Path) -> None:
    found = table(killed)
    assert len(found) > 500
    assert found.equals(table(undisturbed))
    assert not list(killed.rglob("*.partial"))
    for path in (undisturbed / "samples").iterdir():
        assert path.read_bytes() == (killed / "samples" / path.name).read_bytes()


def test_killed_at_random_moments(tmp_path):
    check_same(*killed_and_undisturbed(tmp_path, 4, 0.3, "fakes"))


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_eight_methods_and_two_hundred_scenes_after_three_kills(tmp_path):
    check_same(*killed_and_undisturbed(tmp_path, 3, 0.4, "scenes", 200, EIGHT))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    grown = {}
    for n in (50, 500):
        with start("measured", str(tmp_path / str(n)), n) as process:
            told, _ = process.communicate(timeout=3000)
            assert process.returncode == 0
            grown[n] = int(told)
    # A hundred bytes a word and metric are kept until a row is summed up: a megabyte at 500. All
    # trajectories would be 30 MB more, all scores as objects 20.
    assert grown[500] - grown[50] < 12 * 2**20, grown
