"""A run's cells at their former address, kept for scripts: use ``store.cells`` in new ones."""

from __future__ import annotations

from wordlight.comparisons.store.cells import CellFolder as CellFolder
from wordlight.comparisons.store.cells import DamagedFileError as DamagedFileError
from wordlight.comparisons.store.cells import Score as Score
from wordlight.comparisons.store.cells import read_scores as read_scores
from wordlight.comparisons.store.cells import write_scores as write_scores
