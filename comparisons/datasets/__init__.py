"""Data sets: what is judged on, and the formats that it comes in."""

from wordlight.comparisons.datasets.dataset import (
    AnnotatedImage,
    Annotation,
    Dataset,
    DatasetError,
    DatasetWarning,
    ListedItem,
)
from wordlight.comparisons.datasets.item import (
    CATEGORIES,
    OTHER_ROWS,
    Category,
    DatasetItem,
    Mask,
    ScoredWord,
    WordCounts,
)
from wordlight.comparisons.datasets.opening import open_dataset
from wordlight.comparisons.datasets.scenes import scene_item

__all__ = [
    "CATEGORIES",
    "OTHER_ROWS",
    "AnnotatedImage",
    "Annotation",
    "Category",
    "Dataset",
    "DatasetError",
    "DatasetItem",
    "DatasetWarning",
    "ListedItem",
    "Mask",
    "ScoredWord",
    "WordCounts",
    "open_dataset",
    "scene_item",
]
