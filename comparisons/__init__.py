"""Judging: data sets, metrics, the runner, statistics, reports, the command line."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wordlight.comparisons.datasets.dataset import AnnotatedImage as AnnotatedImage
    from wordlight.comparisons.datasets.dataset import Annotation as Annotation
    from wordlight.comparisons.datasets.dataset import Dataset as Dataset
    from wordlight.comparisons.datasets.dataset import ListedItem as ListedItem
    from wordlight.comparisons.datasets.opening import open_dataset as open_dataset
    from wordlight.comparisons.metrics.judged import JudgedImage as JudgedImage
    from wordlight.comparisons.metrics.judged import JudgedWord as JudgedWord
    from wordlight.comparisons.metrics.metric import Metric as Metric
    from wordlight.comparisons.results.comparison import Comparison as Comparison
    from wordlight.comparisons.results.side_by_side import view as view
    from wordlight.comparisons.runner import compare as compare

#: Where each name comes from. Scores need pyarrow and SciPy, whose import takes seconds: only
#: who compares waits.
_MODULES = {
    "AnnotatedImage": "datasets.dataset",
    "Annotation": "datasets.dataset",
    "Comparison": "results.comparison",
    "Dataset": "datasets.dataset",
    "JudgedImage": "metrics.judged",
    "JudgedWord": "metrics.judged",
    "ListedItem": "datasets.dataset",
    "Metric": "metrics.metric",
    "compare": "runner",
    "open_dataset": "datasets.opening",
    "view": "results.side_by_side",
}
__all__ = [
    "AnnotatedImage",
    "Annotation",
    "Comparison",
    "Dataset",
    "JudgedImage",
    "JudgedWord",
    "ListedItem",
    "Metric",
    "compare",
    "open_dataset",
    "view",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
