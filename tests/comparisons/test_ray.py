"""Workers on a local Ray cluster: the table of one process, also when a worker is killed."""

from __future__ import annotations

import os
import signal
import threading
import time

import psutil
import pyarrow.parquet as pq
import pytest

from tests.comparisons.fakes import FakeBackend
from wordlight.comparisons import compare
from wordlight.comparisons.executors import make_executor

METHODS = ["daam", "uniform", "shuffled-word"]
SMALL = {"n": 8, "calibration": 8, "progress": False}


def test_what_was_made_here_can_not_be_sent_away(tmp_path):
    pytest.importorskip("ray")
    with pytest.raises(ValueError, match="must be named"):
        compare(
            FakeBackend(), ["uniform"], out=tmp_path / "out", executor=make_executor("ray"), **SMALL
        )
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="are for the executor ray"):
        make_executor("local", workers=2)
    with pytest.raises(ValueError, match="'local' or 'ray'"):
        make_executor("slurm")


@pytest.fixture(scope="module")
def cluster():
    # A busy machine takes its time to start it.
    os.environ["RAY_raylet_start_wait_time_s"] = "300"  # noqa: SIM112
    ray = pytest.importorskip("ray")
    ray.init(
        num_cpus=2, object_store_memory=80 * 2**20, include_dashboard=False, log_to_driver=False
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def in_process(tmp_path_factory):
    return compare("scenes", METHODS, out=tmp_path_factory.mktemp("local"), **SMALL)


def table(found):
    rows = pq.read_table(found.out / "results.parquet").to_pandas()
    return rows[rows["metric"] != "seconds"].reset_index(drop=True)


def workers():
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "".join(process.info["cmdline"] or ()).startswith("ray::_Actor")
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own, of files that its processes leave open.
@pytest.mark.usefixtures("cluster")
def test_two_workers_give_the_table_of_one_process(in_process, tmp_path):
    found = compare("scenes", METHODS, out=tmp_path, executor=make_executor("ray", 2), **SMALL)
    assert table(found).equals(table(in_process))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_costs_nothing_but_time(in_process, tmp_path):
    killed = []

    def kill_one():
        while len(list((tmp_path / "cells").rglob("*.parquet"))) < 6:
            time.sleep(0.05)
        victim = workers()[0]
        os.kill(victim.pid, signal.SIGKILL)
        killed.append(victim.pid)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    found = compare("scenes", METHODS, out=tmp_path, executor=make_executor("ray", 2), **SMALL)
    killer.join(1)
    assert killed
    assert found.failures == ()
    assert table(found).equals(table(in_process))
