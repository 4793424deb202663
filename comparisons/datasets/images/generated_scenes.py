"""Images that a model draws of known prompts, kept on disk once drawn."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from wordlight.backends.arrays_file import FileFormatError
from wordlight.backends.backend import Backend
from wordlight.backends.prompted_data import PromptedData, data_of
from wordlight.backends.prompts import check_split
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.datasets import DatasetItem, scene_item
from wordlight.comparisons.datasets.images.image_set import ImageSet, check_numbers
from wordlight.comparisons.store.cells import DamagedFileError

#: Images drawn at once. Fixed, so that a resumed run draws in the same company.
BATCH = 8


class GeneratedScenes(ImageSet):
    """A backend's images of a split's first ``n`` prompts, with the masks found in them.

    Any text-to-image model that follows such prompts will do: masks come from the pixels alone.

    Args:
        backend: the model.
        split: of the prompts; ``"calibration"``, ``"test"``, ...
        n: the number of images.
        seed: with the split and an image's number it gives the seed of the image's noise.
        data: the source of the prompts (default: what the model was trained on, ``data_of``).

    Raises:
        ValueError: an unknown split, too few images (a calibration split may have none), a
            negative seed.
    """

    def __init__(
        self,
        backend: Backend,
        split: str,
        n: int,
        seed: int = 0,
        data: PromptedData | None = None,
    ) -> None:
        data = data_of(backend.model_id) if data is None else data
        check_split(split, data.splits)
        check_numbers(split, n, seed, least=0 if split == "calibration" else 1)
        self.backend = backend
        self.data = data
        self.split = split
        self.n = n
        self.seed = seed
        self.batch = BATCH
        #: What prompts ask for, without the pictures that are rendered of it.
        self._scenes: dict[int, Any] = {}

    def sample_name(self, index: int) -> str:
        """The name of an image, the same whichever model draws it."""
        return f"{self.data.name}-{self.split}-{index:04d}"

    @cached_property
    def samples(self) -> tuple[str, ...]:
        """The names of all images."""
        return tuple(self.sample_name(index) for index in range(self.n))

    def noise_seed(self, index: int) -> int:
        """The seed of an image's initial noise."""
        key = (self.seed, self.data.splits.index(self.split), index)
        return int(np.random.SeedSequence(key).generate_state(1)[0])

    @cached_property
    def scenes(self) -> tuple[Any, ...]:
        """The scene that each image was asked to show."""
        return tuple(self.scene(index) for index in range(self.n))

    @cached_property
    def first_batch(self) -> tuple[Trajectory, ...]:
        """The first images, drawn and not yet kept: to see what the model gives."""
        return self.draw(0)

    @property
    def prompts(self) -> Iterator[str]:
        return (self.scene(index).prompt for index in range(self.n))

    def identity(self) -> Any:
        other = "" if self.split in ("calibration", "test") else f", {self.split}"
        return f"{self.data.name}, version {self.data.version}, masks {self.data.masks}{other}"

    def scene(self, index: int) -> Any:
        """Return the scene that an image was asked to show."""
        if index not in self._scenes:
            self._scenes[index] = self.data.rendered(self.split, index).scene
        return self._scenes[index]

    def make(self, start: int, folder: Path) -> None:
        paths = {index: self.path(index, folder) for index in self.batch_from(start)}
        if all(path.exists() for path in paths.values()):
            return
        drawn = self.first_batch if start == 0 else self.draw(start)
        for trajectory, (index, path) in zip(drawn, paths.items(), strict=True):
            if not path.exists():
                trajectory.save(path, self.label(index))

    def item(self, index: int, folder: Path) -> DatasetItem:
        path = self.path(index, folder)
        try:
            trajectory = Trajectory.load(path, self.label(index))
        except FileFormatError as error:
            raise DamagedFileError(path, str(error)) from None
        name, scene = self.sample_name(index), self.scene(index)
        return scene_item(name, self.split, scene, trajectory, self.data)

    def draw(self, start: int) -> tuple[Trajectory, ...]:
        """One batch, from image number ``start`` on."""
        indices = self.batch_from(start)
        drawn = self.backend.sample(
            [self.scene(i).prompt for i in indices], seed=[self.noise_seed(i) for i in indices]
        )
        return (drawn,) if isinstance(drawn, Trajectory) else tuple(drawn)
