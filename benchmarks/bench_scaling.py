"""How a run would scale over workers: the scheduler itself, fed with the seconds of a run that was.

    python benchmarks/bench_scaling.py out/compare --images 100000

Each task takes what one of the run's images took, drawn at random, and the driver what Ray is
measured to take here to hand a task out and to bring its answer back (or --overhead). Loading the
model is counted once a worker; a shared disk or network that becomes the bottleneck is not.
"""

from __future__ import annotations

import argparse
import heapq
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from wordlight.comparisons.metrics.judged import Thresholds
from wordlight.comparisons.runs.executors.dispatch import AHEAD, Dispatch
from wordlight.comparisons.runs.worker import Chosen, Done, Task

#: Tasks that are sent to and fro.
SENT = 2000


class Idle:
    """A worker that has nothing to do."""

    def do(self, task: Task) -> Done:
        return Done(task)


def measured_overhead() -> float:
    """Seconds that a task costs the driver: of one worker that answers at once, as many tasks ahead
    as the executor keeps. The worker's own share of it is counted too."""
    import ray

    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    worker = ray.remote(num_cpus=1)(Idle).remote()
    chosen = {f"method-{k}": Chosen(0, Thresholds(0.4, 0.1)) for k in range(10)}
    tasks = iter([Task("judge", "test", k, "torch", chosen) for k in range(SENT)])
    ray.get(worker.do.remote(Task("judge", "test", 0, "torch", chosen)))
    began = time.perf_counter()
    flying = [worker.do.remote(next(tasks)) for _ in range(AHEAD)]
    while flying:
        (ready,), flying = ray.wait(flying, num_returns=1)
        ray.get(ready)
        if (task := next(tasks, None)) is not None:
            flying.append(worker.do.remote(task))
    took = time.perf_counter() - began
    ray.shutdown()
    return took / SENT


def simulate(seconds: np.ndarray, workers: int, overhead: float, load: float) -> float:
    """How long the tasks take on so many workers."""
    dispatch: Dispatch[int, int] = Dispatch(range(len(seconds)))
    free = np.full(workers, load)
    for worker in range(workers):
        dispatch.add(worker)
    # The driver hands out and takes back one task after another.
    driver, now = 0.0, 0.0
    running: list[tuple[float, int, int]] = []
    while True:
        for worker, task in dispatch.assign():
            driver = max(driver, now) + overhead
            free[worker] = max(free[worker], driver) + seconds[task]
            heapq.heappush(running, (float(free[worker]), worker, task))
        if not running:
            return now
        now, worker, task = heapq.heappop(running)
        dispatch.finished(worker, task)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--overhead", type=float, help="seconds a task (measured)")
    parser.add_argument("--load", type=float, default=20.0, help="seconds to load a model (20)")
    parser.add_argument("--faster", type=float, default=1.0, help="than the run's own device")
    asked = parser.parse_args()
    table = pq.read_table(asked.run / "results.parquet").to_pandas()
    own = table[(table["metric"] == "seconds") & ~table["method"].str.startswith("shuffled-word")]
    images = own.groupby("sample")["value"].sum().to_numpy() / asked.faster
    seconds = np.random.default_rng(0).choice(images, asked.images)
    overhead = measured_overhead() if asked.overhead is None else asked.overhead
    alone = seconds.sum() + asked.load
    print(f"driver: {1000 * overhead:.2f} ms a task")
    print(f"{asked.images} images of {images.mean():.3f} s each: {alone / 3600:.2f} hours alone")
    print("workers  hours  speed-up  efficiency")
    for workers in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        took = simulate(seconds, workers, overhead, asked.load)
        speed = alone / took
        print(f"{workers:7}  {took / 3600:5.2f}  {speed:8.1f}  {speed / workers:10.0%}")


if __name__ == "__main__":
    main()
