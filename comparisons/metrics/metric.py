"""What every metric is: values of images, gathered, merged and averaged."""

from __future__ import annotations

from typing import ClassVar, Self

from wordlight.comparisons.stats.intervals import Estimate, mean_over_words


class Metric:
    """A named mean over words, with its interval over images.

    ``merge`` and the order of updates change nothing: the same values give the same estimate, to
    the bit.

    Attributes:
        name: in results and tables.
        higher_is_better: which way it points.
    """

    name: str
    higher_is_better: ClassVar[bool] = True

    def __init__(self, name: str) -> None:
        self.name = name
        self._values: list[tuple[str, float]] = []

    def add(self, sample: str, value: float) -> None:
        """Take a value of an image, as ``update`` gave it before."""
        self._values.append((sample, float(value)))

    def merge(self, other: Self) -> None:
        """Take over all that another one of the same kind was updated with.

        Raises ValueError for another metric.
        """
        if (type(other), other.name) != (type(self), self.name):
            raise ValueError(f"{self.name} can't be merged with {other.name}")
        self._values += other._values

    def compute(self, *, seed: int = 0) -> Estimate:
        """The mean over words, with the bootstrap interval over images; nan where there is none.

        Raises ValueError where a value is no finite number.
        """
        values = sorted(self._values)
        return mean_over_words([s for s, _ in values], [v for _, v in values], seed=seed)
