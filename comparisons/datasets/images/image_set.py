"""The images of a run: made once, kept in the run's folder, read one at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.datasets import DatasetItem


class ImageSet(ABC):
    """The images of one split, each of them a trajectory's file in a folder once it is made.

    Attributes:
        split: its name.
        batch: the number of images made at once; always the same ones, so that a resumed run makes
            them in the same company.
        run: the hash of the settings of the run that keeps them, which its files name; "" where
            they are of no run.
    """

    split: str
    batch: int = 1
    run: str = ""

    @property
    @abstractmethod
    def samples(self) -> Sequence[str]:
        """The names of all images."""

    @property
    @abstractmethod
    def prompts(self) -> Iterable[str]:
        """Their prompts, before anything is made."""

    @abstractmethod
    def identity(self) -> Any:
        """All that tells these images from others, beside the model, as plain data."""

    @property
    @abstractmethod
    def first_batch(self) -> Sequence[Trajectory]:
        """The first images, made and kept nowhere: to see what they are like."""

    @abstractmethod
    def make(self, start: int, folder: Path) -> None:
        """Make the batch from image number ``start`` on, as far as the folder lacks it."""

    @abstractmethod
    def item(self, index: int, folder: Path) -> DatasetItem | None:
        """An image with its masks, from the folder; None for one that is left out.

        Raises DamagedFileError for a file that can't be read, FileNotFoundError for none, and
        ValueError for one of another prompt.
        """

    def __len__(self) -> int:
        return len(self.samples)

    def batch_from(self, start: int) -> range:
        """The numbers of a batch's images."""
        return range(start, min(start + self.batch, len(self)))

    def n_missing(self, start: int, folder: Path) -> int:
        """Return the number of images of a batch that the folder doesn't hold."""
        return sum(not self.path(index, folder).exists() for index in self.batch_from(start))

    def label(self, index: int) -> dict[str, str] | None:
        """Return the label in an image's file, of what it was kept for; None where it may be of any
        run."""
        return {"run": self.run, "sample": self.samples[index]} if self.run else None

    def path(self, index: int, folder: Path) -> Path:
        """Return the path of an image's file."""
        return folder / f"{self.samples[index]}.safetensors"

    def stream(self, folder: Path) -> Iterator[DatasetItem]:
        """Yield each image with its masks; what ``folder`` doesn't hold is made and kept there.

        Raises:
            OSError: the folder can't be written.
            ValueError: a file there is damaged, or of another prompt.
        """
        for start in range(0, len(self), self.batch):
            self.make(start, folder)
            for index in self.batch_from(start):
                # What was kept is what is used, also in the run that made it.
                item = self.item(index, folder)
                if item is not None:
                    yield item
        self.report_left_out()

    @property
    def given(self) -> bool:
        """True if the images were given, and not drawn by the model."""
        return False

    def may_leave_out(self, sample: str) -> bool:
        """Return whether an image may turn out to be left out, as far as that is known
        beforehand."""
        return False

    @property
    def left_out(self) -> Mapping[str, str]:
        """The images that were left out so far, each with why."""
        return {}

    def leave_out(self, found: Mapping[str, str]) -> None:  # noqa: B027
        """Count images too that another process left out."""

    def report_left_out(self) -> None:  # noqa: B027
        """Warn once of the images that were left out, if any were."""

    def forget(self, folder: Path) -> None:
        """Remove from ``folder`` what was kept there, and the folder if nothing is left."""
        for index in range(len(self)):
            self.path(index, folder).unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def check_numbers(split: str, n: int, seed: int, *, least: int) -> None:
    """Raise ValueError for fewer than ``least`` images of a split, and for a negative seed."""
    if n < least:
        raise ValueError(f"at least one image of the {split} split is needed, not {n}")
    if seed < 0:
        raise ValueError(f"the seed must be 0 or more, not {seed}")
