"""Images that a model draws of the scenes' prompts, kept on disk once drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from wordlight.backends.backend import Backend
from wordlight.backends.scenes.grammar import DATA_VERSION, SPLITS, Scene
from wordlight.backends.scenes.render import rendered
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.datasets import DatasetItem, scene_item

#: Images drawn at once. Fixed, so that a resumed run draws in the same company.
BATCH = 8


class GeneratedScenes:
    """What a backend draws of a split's first ``n`` prompts, with the masks found in it.

    Any text-to-image model that follows such prompts will do: masks come from the pixels alone.

    Args:
        backend: the model.
        split: of the prompts; ``"calibration"``, ``"test"``, ...
        n: how many images.
        seed: with the split and an image's number it gives the seed of the image's noise.

    Raises:
        ValueError: an unknown split, a number of images below 1, a negative seed.
    """

    def __init__(self, backend: Backend, split: str, n: int, seed: int = 0) -> None:
        if split not in SPLITS:
            raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
        if n < 1:
            raise ValueError(f"at least one image of the {split} split is needed, not {n}")
        if seed < 0:
            raise ValueError(f"the seed must be 0 or more, not {seed}")
        self.backend = backend
        self.split = split
        self.n = n
        self.seed = seed

    def sample_name(self, index: int) -> str:
        """The name of an image, the same whichever model draws it."""
        return f"scenes-{self.split}-{index:04d}"

    @property
    def samples(self) -> tuple[str, ...]:
        """The names of all images."""
        return tuple(self.sample_name(index) for index in range(self.n))

    def noise_seed(self, index: int) -> int:
        """The seed of an image's initial noise."""
        key = (self.seed, SPLITS.index(self.split), index)
        return int(np.random.SeedSequence(key).generate_state(1)[0])

    @cached_property
    def scenes(self) -> tuple[Scene, ...]:
        """What each image was asked to show."""
        return tuple(rendered(self.split, index).scene for index in range(self.n))

    @property
    def prompts(self) -> tuple[str, ...]:
        """The same in words."""
        return tuple(scene.prompt for scene in self.scenes)

    def identity(self) -> Any:
        """All that tells these images from others, beside the model, as plain data."""
        other = "" if self.split in ("calibration", "test") else f", {self.split}"
        return f"scenes, version {DATA_VERSION}{other}"

    @cached_property
    def first_batch(self) -> tuple[Trajectory, ...]:
        """The first images, drawn and not yet kept: to see what the model gives."""
        return self.draw(0)

    def items(
        self, folder: Path, on_image: Callable[[], object] = lambda: None
    ) -> list[DatasetItem]:
        """What ``stream`` gives, all at once."""
        return list(self.stream(folder, on_image))

    def stream(
        self, folder: Path, on_image: Callable[[], object] = lambda: None
    ) -> Iterator[DatasetItem]:
        """Every image with its masks; what ``folder`` doesn't hold is drawn and kept there.

        Args:
            folder: of trajectories, ``<sample>.safetensors`` each.
            on_image: called once an image, for a progress bar.

        Raises:
            OSError: the folder can't be written.
            ValueError: a file there is damaged, or of another prompt.
        """
        for start in range(0, self.n, BATCH):
            paths = [folder / f"{name}.safetensors" for name in self.samples[start : start + BATCH]]
            drawn: tuple[Trajectory, ...] = ()
            if not all(path.exists() for path in paths):
                drawn = self.first_batch if start == 0 else self.draw(start)
            for offset, path in enumerate(paths):
                if not path.exists():
                    drawn[offset].save(path)
                # What was kept is what is used, also in the run that drew it.
                trajectory = Trajectory.load(path)
                index = start + offset
                yield scene_item(
                    self.sample_name(index), self.split, self.scenes[index], trajectory
                )
                on_image()

    def forget(self, folder: Path) -> None:
        """Remove from ``folder`` what ``items`` kept there, and the folder if nothing is left."""
        for name in self.samples:
            (folder / f"{name}.safetensors").unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def draw(self, start: int) -> tuple[Trajectory, ...]:
        """One batch, from image number ``start`` on."""
        indices = range(start, min(start + BATCH, self.n))
        drawn = self.backend.sample(
            [self.scenes[i].prompt for i in indices], seed=[self.noise_seed(i) for i in indices]
        )
        return (drawn,) if isinstance(drawn, Trajectory) else tuple(drawn)
