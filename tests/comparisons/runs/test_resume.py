"""A run that is killed goes on where it was, to the same table; its memory doesn't grow."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from wordlight.comparisons.runs.listing import read_run

ROOT = Path(__file__).parents[3]
PAGE = {Path("report.html")}

#: What is another number each time.
MEASURED = ("seconds", "peak-bytes")
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
#: Without forward mode, which every process that is started has to compile first.
QUICK = [name for name in EIGHT if name != "input-x-gradient"] + ["random"]


class Launcher:
    """Runs comparisons in processes of their own; see ``interrupted_run``."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.comparisons.runs.interrupted_run"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.told("ready")

    def told(self, what: str) -> int:
        assert self.process.stdout is not None
        return int(json.loads(self.process.stdout.readline())[what])

    def start(self, kind: str, *arguments: object, files: int | None = None) -> int:
        """The number of the process; ``files``: it is killed before that one of its new files."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([kind, arguments, files]) + "\n")
        self.process.stdin.flush()
        return self.told("pid")

    def finish(self) -> int:
        """How the process that was started ended: 0, or minus the signal that killed it."""
        return self.told("status")

    def close(self) -> None:
        with self.process as process:
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(60) == 0


@pytest.fixture(scope="module")
def launcher():
    found = Launcher()
    yield found
    found.close()


def table(out: Path):
    found = pq.read_table(out / "results.parquet").to_pandas()
    return found[~found["metric"].isin(MEASURED)].reset_index(drop=True)


def files_in(out: Path) -> set[Path]:
    """What is finished: the lock and the note of who holds it are neither cells nor images."""
    return {
        path.relative_to(out)
        for path in out.rglob("*")
        if path.is_file() and path.suffix != ".partial" and not path.name.startswith(".")
    }


def check_same(killed: Path, undisturbed: Path) -> None:
    found = table(killed)
    assert len(found) > 50
    assert found.equals(table(undisturbed))
    assert files_in(killed) == files_in(undisturbed)
    assert not list(killed.rglob("*.partial"))
    for path in (undisturbed / "samples").iterdir():
        assert path.read_bytes() == (killed / "samples" / path.name).read_bytes()


def kill_at_random(launcher: Launcher, tmp_path: Path, kills: int, kind: str, *rest: object):
    """Kills a run so often, each time at a random moment of what would be a fair share of its work
    (told by its files, however busy the machine is), and holds what became of it against a run that
    was left alone."""
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    launcher.start(kind, str(undisturbed), *rest)
    assert launcher.finish() == 0
    whole = len(files_in(undisturbed))
    moments = random.Random(0)
    seen = [set()]
    in_the_middle = 0
    for kill in range(kills):
        pid = launcher.start(kind, str(killed), *rest)
        # Of what is left: a kill that comes late, on a busy machine, leaves less for the others.
        share = (whole - len(seen[-1])) / (kills - kill + 1)
        kill_after(pid, killed, len(seen[-1]) + moments.uniform(0, 1.5) * share)
        in_the_middle += launcher.finish() == -signal.SIGKILL
        seen.append(files_in(killed) if killed.exists() else set())
    assert in_the_middle > kills / 2
    assert seen[-1]
    # Nothing that was finished is lost, however the run ends.
    assert all(before <= after for before, after in pairwise(seen))
    assert sum(before < after for before, after in pairwise(seen)) > 1
    launcher.start(kind, str(killed), *rest)
    assert launcher.finish() == 0
    check_same(killed, undisturbed)


def kill_after(pid: int, folder: Path, files: float) -> None:
    """Kill a run soon after it has so many files, if it hasn't ended before."""
    moments = random.Random(files)
    try:
        while not folder.exists() or len(files_in(folder)) < files:
            os.kill(pid, 0)
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.1))
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, 20])
def test_killed_at_random_moments(launcher, tmp_path, kills):
    kill_at_random(launcher, tmp_path, kills, "fakes")


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 6])
def test_killed_before_a_file_has_its_name(launcher, tmp_path, every):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    launcher.start("few", str(undisturbed))
    assert launcher.finish() == 0
    whole = files_in(undisturbed)
    kills = 0
    while True:
        # So many files further each time, and dead with the next one written and not yet named.
        launcher.start("few", str(killed), files=every)
        if (status := launcher.finish()) != -signal.SIGKILL:
            break
        kills += 1
        assert kills <= len(whole) + 2
        if (killed / "settings.json").exists():
            finished = read_run(killed).state == "finished"
            # The page is made of a finished run, and anew by every start.
            assert finished == (files_in(killed) | PAGE == whole | PAGE)
    assert status == 0
    assert kills >= len(whole) // every - 2
    check_same(killed, undisturbed)


@pytest.mark.slow
def test_eight_methods_on_twelve_scenes_after_three_kills(launcher, tmp_path):
    # At a budget there is no row of all steps, which would take half of the time.
    kill_at_random(launcher, tmp_path, 3, "scenes", 12, 6, 1, QUICK, 60)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_eight_methods_on_two_hundred_scenes_after_three_kills(launcher, tmp_path):
    kill_at_random(launcher, tmp_path, 3, "scenes", 200, 16, 4, EIGHT)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_memory_does_not_grow_with_the_number_of_images(launcher, tmp_path):
    launcher.start("measured", str(tmp_path), 50, 500)
    grown = launcher.told("grown")
    assert launcher.finish() == 0
    # While images are judged nothing grows; what the tables are made with takes 13 MB more, of 500
    # images as of 1500 (seen). All trajectories would be 30 MB on top, all scores as objects 20.
    assert grown < 18 * 2**20, grown
