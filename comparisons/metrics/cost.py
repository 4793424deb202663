"""What an image's maps cost: denoiser evaluations, seconds, peak memory; means are over images."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from wordlight.attribution.maps import Provenance
from wordlight.comparisons.metrics.metric import Metric


class Cost(Metric):
    """A cost of all of an image's maps; a subclass writes ``cost``."""

    higher_is_better: ClassVar[bool] = False

    @abstractmethod
    def cost(self, spent: Provenance) -> float | None:
        """The cost, or None where it isn't known."""

    def update(self, sample: str, spent: Provenance) -> float | None:
        """Take an image's cost in where it is known; gives it too.

        Args:
            sample: the image.
            spent: of its maps.
        """
        value = self.cost(spent)
        if value is not None:
            self.add(sample, value)
        return value


class ForwardEquivalents(Cost):
    """Rows of the denoiser: a forward pass counts 1, a forward-mode product 2, a reverse one 3."""

    def cost(self, spent: Provenance) -> float | None:
        """See ``Cost.cost``; None of maps from elsewhere that don't say what they cost."""
        return float(spent.forward_equivalents) if _told(spent) else None


class Seconds(Cost):
    """Wall-clock seconds."""

    def cost(self, spent: Provenance) -> float | None:
        """See ``Cost.cost``; None of maps from elsewhere that don't say what they cost."""
        return float(spent.seconds) if _told(spent) else None


class PeakBytes(Cost):
    """The device's memory at its fullest, the model's own included."""

    def cost(self, spent: Provenance) -> float | None:
        """See ``Cost.cost``; None where the device doesn't tell, as no CPU does."""
        return None if spent.peak_bytes is None else float(spent.peak_bytes)


def _told(spent: Provenance) -> bool:
    return bool(spent.forward_equivalents or spent.seconds)
