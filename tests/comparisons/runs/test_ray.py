"""Workers on a local Ray cluster: the table of one process, also when a worker is killed."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import ray

from tests.comparisons.dataset_files import save
from tests.comparisons.datasets.test_datasets_with_torch import shape_words, two_objects
from tests.comparisons.fakes import FakeBackend
from tests.comparisons.studies.test_daam_paper import given, typed  # noqa: F401
from wordlight.comparisons import compare
from wordlight.comparisons.cli.main import main
from wordlight.comparisons.runs.bench import Bench
from wordlight.comparisons.runs.executors import make_executor, on_ray
from wordlight.comparisons.runs.plan import Plan
from wordlight.comparisons.runs.worker import Task
from wordlight.comparisons.store.settings_file import write_settings

METHODS = ["daam", "uniform", "shuffled-word"]
#: What is another number each time.
MEASURED = ("seconds", "peak-bytes")
SMALL = {"n": 8, "calibration": 8, "progress": False}


def test_what_was_made_here_can_not_be_sent_away(tmp_path):
    with pytest.raises(ValueError, match="must be named"):
        compare(
            FakeBackend(), ["uniform"], out=tmp_path / "out", executor=make_executor("ray"), **SMALL
        )
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="are for the executor ray"):
        make_executor("local", workers=2)
    with pytest.raises(ValueError, match="'local' or 'ray'"):
        make_executor("slurm")


def test_a_worker_loads_the_model_once(tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        "wordlight.backends.loading.load",
        lambda name, **_: loaded.append(name) or FakeBackend(),
    )
    plan = Plan(model="renderer", methods=["uniform"], n=2, calibration=2)
    write_settings(tmp_path, Bench(plan).settings())
    loaded.clear()
    here = os.getcwd()
    actor = on_ray._Actor(plan, str(tmp_path), "stop", str(tmp_path))
    try:
        assert os.getcwd() == str(tmp_path)
    finally:
        os.chdir(here)
    # Not before it is asked for something: what goes wrong is an answer then.
    assert not loaded
    assert actor.settings()["model"] == "renderer"
    for index in range(2):
        assert actor.do(Task("calibrate", "calibration", index, "fake")).units == 1
    assert loaded == ["renderer"]
    broken = on_ray._Actor(Plan(model="renderer", methods=["unform"]), "", "stop", here)
    with pytest.raises(ValueError, match="unform"):
        broken.settings()


@pytest.mark.parametrize(
    ("resources", "workers", "each", "room"),
    [
        ([{"CPU": 8.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 4.0}], None, {"num_gpus": 1}, 8),
        ([{"CPU": 96.0, "TPU": 4.0}] * 2, None, {"resources": {"TPU": 4}}, 2),
        # Without either, machines or their shares.
        ([{"CPU": 16.0}] * 3, None, {"num_cpus": 16}, 3),
        ([{"CPU": 16.0}] * 3, 6, {"num_cpus": 8}, 6),
        ([{"CPU": 3.0}] * 2, 3, {"num_cpus": 1}, 6),
        ([{"CPU": 2.0}], 8, {"num_cpus": 1}, 2),
        # The head of a cluster may offer nothing.
        ([{"CPU": 0.0}, {"CPU": 4.0}], None, {"num_cpus": 4}, 1),
    ],
)
def test_what_a_worker_takes_of_its_machine(monkeypatch, resources, workers, each, room):
    nodes = [{"Alive": True, "Resources": one} for one in resources]
    dead = {"Alive": False, "Resources": {"CPU": 64.0, "TPU": 4.0}}
    gpus = sum(one.get("GPU", 0) for one in resources)
    monkeypatch.setattr(on_ray.ray, "nodes", lambda: [*nodes, dead])
    monkeypatch.setattr(on_ray.ray, "cluster_resources", lambda: {"GPU": gpus} if gpus else {})
    assert on_ray._resources(workers) == (each, room)


@pytest.fixture(scope="module")
def cluster():
    # A busy machine takes its time to start it. Whoever is to join it has to know its token.
    os.environ["RAY_raylet_start_wait_time_s"] = "300"  # noqa: SIM112
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    # Its workers would stand back for whatever else the machine does.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    # A cluster that something else has left on this machine isn't the one to join.
    ray.init(
        "local",
        num_cpus=2,
        object_store_memory=80 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def in_process(tmp_path_factory):
    return compare("scenes", METHODS, out=tmp_path_factory.mktemp("local"), **SMALL)


def table(found):
    rows = pq.read_table(found.out / "results.parquet").to_pandas()
    return rows[~rows["metric"].isin(MEASURED)].reset_index(drop=True)


def workers():
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if "".join(process.info["cmdline"] or ()).startswith("ray::_Actor")
    ]


# Ray's own warnings are of files that its processes leave open.
on_cluster = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
    ),
    pytest.mark.usefixtures("cluster"),
]


def marked(test):
    for mark in on_cluster:
        test = mark(test)
    return test


@marked
def test_workers_give_the_table_of_one_process(in_process, tmp_path):
    # Four on two cores: those for which there is no room keep nobody waiting.
    with pytest.warns(UserWarning, match="room for 2 workers now, and 4 were asked for"):
        found = compare("scenes", METHODS, out=tmp_path, executor=make_executor("ray", 4), **SMALL)
    assert table(found).equals(table(in_process))


@marked
def test_a_killed_worker_costs_nothing_but_time(in_process, tmp_path):
    killed = []

    def kill(count):
        for number in range(count):
            while len(list((tmp_path / "cells").rglob("*.parquet"))) < 6 * (number + 1):
                time.sleep(0.05)
            victim = workers()[0]
            os.kill(victim.pid, signal.SIGKILL)
            killed.append(victim.pid)

    killer = threading.Thread(target=kill, args=(2,), daemon=True)
    killer.start()
    found = compare("scenes", METHODS, out=tmp_path, executor=make_executor("ray", 2), **SMALL)
    killer.join(1)
    assert len(set(killed)) == 2
    assert found.failures == ()
    assert table(found).equals(table(in_process))


@marked
def test_a_run_that_was_begun_here_is_finished_on_a_cluster_that_is_named(in_process, tmp_path):
    """By the command line, from a folder of its own, with a data set and a path relative to it."""
    import ray

    address = ray.get_runtime_context().gcs_address
    lines = []
    for index, drawn in enumerate(two_objects(4)):
        save(tmp_path / f"set/{index}.png", drawn.image)
        masks = {}
        for place, word in shape_words(drawn.scene).items():
            masks[word] = f"{index}-{word}.png"
            save(tmp_path / "set" / masks[word], drawn.word_masks()[place].astype(np.uint8) * 255)
        lines.append({"image": f"{index}.png", "prompt": drawn.scene.prompt, "masks": masks})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "set/items.jsonl").write_text(text)
    command = [sys.executable, "-m", "wordlight.comparisons.cli.main", "compare", "-o", "out"]
    command += ["--data", "folder:set", "-n", "3", "--calibration", "1", "--skip-malformed"]
    command += ["--method", "daam", "--method", "uniform", "--quiet"]

    def do(*more):
        return subprocess.run(
            [*command, *more],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )

    here = do()
    assert here.returncode == 0, here.stderr
    first = pq.read_table(tmp_path / "out/results.parquet").to_pandas()
    for path in (tmp_path / "out/cells").rglob("daam.parquet"):
        path.unlink()
    there = do("--executor", "ray", "--workers", "2", "--address", address)
    assert there.returncode == 0, there.stderr
    again = pq.read_table(tmp_path / "out/results.parquet").to_pandas()
    assert again[~again["metric"].isin(MEASURED)].equals(first[~first["metric"].isin(MEASURED)])
    nowhere = do("--executor", "ray", "--address", "127.0.0.1:1")
    assert nowhere.returncode == 2
    assert len(nowhere.stderr.strip().splitlines()) == 1


@marked
def test_a_paper_s_tables_that_were_begun_here_are_finished_on_ray(
    given,  # noqa: F811
    tmp_path,
    capsys,
    monkeypatch,
):
    """Drawing and maps: of one image nothing is left, of another its maps."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "out"
    assert main(typed(given, out)) == 0
    found = json.loads(capsys.readouterr().out)
    files = {path: path.stat().st_mtime_ns for path in (out / "run").rglob("*") if path.is_file()}
    samples = sorted(path.name for path in (out / "run/cells/torch").iterdir())
    assert len(samples) == 3

    def of(sample):
        return [path for path in files if sample in (path.stem, path.parent.name)]

    gone = of(samples[0]) + [path for path in of(samples[1]) if path.stem == "daam"]
    assert {path.suffix for path in gone} >= {".parquet", ".safetensors"}
    for path in gone:
        path.unlink()
    (out / "daam.html").unlink()
    assert main(typed(given, out, "captions.txt", "--executor", "ray", "--workers", "1")) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert (out / "daam.html").is_file()
    assert all(path.is_file() for path in gone)
    kept = of(samples[2])
    assert kept
    assert all(path.stat().st_mtime_ns == files[path] for path in kept)
