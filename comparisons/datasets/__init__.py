"""Data sets: what is judged on, and the formats that it comes in."""

from wordlight.comparisons.datasets.dataset import (
    AnnotatedImage,
    Annotation,
    Dataset,
    DatasetError,
    DatasetWarning,
    Listed,
)
from wordlight.comparisons.datasets.item import (
    CATEGORIES,
    OTHER_ROWS,
    Accounting,
    Category,
    DatasetItem,
    Mask,
    ScoredWord,
)
from wordlight.comparisons.datasets.opening import open_dataset
from wordlight.comparisons.datasets.scenes import scene_item

__all__ = [
    "CATEGORIES",
    "OTHER_ROWS",
    "Accounting",
    "AnnotatedImage",
    "Annotation",
    "Category",
    "Dataset",
    "DatasetError",
    "DatasetItem",
    "DatasetWarning",
    "Listed",
    "Mask",
    "ScoredWord",
    "open_dataset",
    "scene_item",
]
