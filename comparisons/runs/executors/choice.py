"""An executor by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from wordlight.comparisons.runs.bench import Bench
from wordlight.comparisons.runs.executors.executor import Executor, InProcess
from wordlight.comparisons.runs.worker import Damaged, Worker

#: Makes the executor of a run: of its bench, its folder, and what becomes of damaged files.
MakeExecutor = Callable[[Bench, Path, Damaged], Executor]


def make_executor(
    name: str = "local",
    workers: int | None = None,
    address: str | None = None,
) -> MakeExecutor:
    """Make an executor of what ``compare(executor=...)`` takes.

    Args:
        name: ``"local"``, in this process; ``"ray"``, by workers on a Ray cluster.
        workers: with Ray, how many; one a GPU or a TPU host for None, or one a machine where there
            are neither, with all its cores. More than there are machines share them.
        address: with Ray, the cluster's; the one that ``RAY_ADDRESS`` names for None, or one of
            this machine alone.

    Raises ValueError for an unknown name, options that it doesn't take, Ray not being installed.
    """
    if name == "ray":
        try:
            from wordlight.comparisons.runs.executors.on_ray import RayExecutor
        except ImportError as error:
            raise ValueError(
                f"Ray isn't installed ({error}): pip install 'wordlight[ray]'"
            ) from None
        return lambda bench, root, damaged: RayExecutor(
            bench, root, damaged, workers=workers, address=address
        )
    if name != "local":
        raise ValueError(f"the executor is 'local' or 'ray', not {name!r}")
    if workers is not None or address is not None:
        raise ValueError("workers and an address are for the executor ray")
    return lambda bench, root, damaged: InProcess(Worker(bench, root, damaged))
