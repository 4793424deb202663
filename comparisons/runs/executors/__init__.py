"""Executors of a run's tasks: in this process, or on the machines of a Ray cluster."""

from wordlight.comparisons.runs.executors.choice import make_executor
from wordlight.comparisons.runs.executors.executor import Executor, InProcess, WorkersWarning

__all__ = ["Executor", "InProcess", "WorkersWarning", "make_executor"]
