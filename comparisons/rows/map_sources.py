"""Sources of a row's maps: a live method, or files that were made elsewhere."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wordlight.attribution.attributor import TextImageAttributor
from wordlight.attribution.maps import AttributionMaps
from wordlight.attribution.methods.noise_tunnel import NoiseTunnel
from wordlight.backends.arrays_file import FileFormatError
from wordlight.comparisons.datasets import DatasetItem
from wordlight.comparisons.store.cells import DamagedFileError
from wordlight.comparisons.store.json_file import checksum
from wordlight.comparisons.store.versions import releases_of, source_digest

#: Maps of another image differ from ours by far more grey levels a pixel than another device's
#: arithmetic does.
_SAME_IMAGE = 1.0


class MethodError(Exception):
    """A method couldn't explain an image; what it raised is the cause."""


class PrecomputedMapsError(ValueError):
    """Maps from files aren't there, can't be read or are of something else."""


class MapSource(ABC):
    """Gives the maps of an image."""

    @abstractmethod
    def maps(self, item: DatasetItem, kept: Path) -> AttributionMaps:
        """The maps of an item; ``kept`` is where this run keeps maps that it makes."""

    def make_ahead(self, items: Mapping[Path, DatasetItem]) -> None:  # noqa: B027
        """Make the maps of several images side by side, and keep them where ``maps`` will look;
        what fails is left to ``maps``."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All that changes the maps, as plain data, but for code of no release."""

    @property
    def source(self) -> str:
        """A digest of the code that makes them, as far as it is of no release."""
        return ""


class LiveMaps(MapSource):
    """Asks a method, once an image: what it answered is kept and read again."""

    def __init__(self, attributor: TextImageAttributor) -> None:
        self.attributor = attributor

    def maps(self, item: DatasetItem, kept: Path) -> AttributionMaps:
        label = self._label(item)
        if kept.exists():
            try:
                return AttributionMaps.load(kept, label)
            except FileFormatError as error:
                raise DamagedFileError(kept, str(error)) from None
        try:
            maps = self.attributor.attribute(item.trajectory)
        except Exception as error:
            raise MethodError(str(error)) from error
        maps.save(kept, label)
        return maps

    def make_ahead(self, items: Mapping[Path, DatasetItem]) -> None:
        made = self.attributor.attempt_each([item.trajectory for item in items.values()])
        for (path, item), maps in zip(items.items(), made, strict=True):
            if isinstance(maps, AttributionMaps) and not path.exists():
                maps.save(path, self._label(item))

    def _label(self, item: DatasetItem) -> dict[str, str]:
        return {
            "sample": item.sample,
            "image": item.trajectory.digest(),
            "settings": checksum([self.settings(), self.source]),
        }

    def settings(self) -> dict[str, Any]:
        kind = type(self.attributor)
        settings = {
            "method": self.attributor.name,
            "class": f"{kind.__module__}.{kind.__qualname__}",
            **self.attributor.settings(),
        }
        if releases := _releases(_kinds(self.attributor)):
            settings["releases"] = releases
        return settings

    @property
    def source(self) -> str:
        return source_digest(_kinds(self.attributor))


class PrecomputedMaps(MapSource):
    """Reads ``<sample>.safetensors`` files, as ``AttributionMaps.save`` writes them.

    Args:
        name: of the row, for errors.
        folder: holds one file an image, of the calibration and of the test split.
            Or a run's folder ``maps/FRAMEWORK``, with one of the row's name in a folder an image.
        samples: the images that there are.
        may_lack: says of one whether it need not have a file, since there may be no image of it.

    Attributes:
        samples: those that have a file.

    Raises:
        PrecomputedMapsError: no such folder, or a file that is missing; later, files that don't
            fit their images, or a missing one after all.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        samples: Iterable[str],
        may_lack: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.name = name
        self.folder = folder
        if not folder.is_dir():
            raise PrecomputedMapsError(
                f"the maps of {name!r} should be in {folder}, which is no folder"
            )
        wanted = tuple(samples)
        self.samples = tuple(s for s in wanted if self._path(s).is_file())
        # What is in the settings' hash: a file that comes later isn't.
        self._known = frozenset(self.samples)
        missing = [s for s in wanted if s not in self._known and not may_lack(s)]
        if missing:
            raise PrecomputedMapsError(
                f"the maps of {name!r} lack {self._path(missing[0])} ({len(missing)} of "
                f"{len(wanted)} files are missing)"
            )

    def _path(self, sample: str) -> Path:
        kept = self.folder / sample / f"{self.name}.safetensors"
        return kept if kept.is_file() else self.folder / f"{sample}.safetensors"

    def maps(self, item: DatasetItem, kept: Path) -> AttributionMaps:
        path = self._path(item.sample)
        if item.sample not in self._known:
            raise PrecomputedMapsError(f"the maps of {self.name!r} lack {path}")
        try:
            maps = AttributionMaps.load(path)
        except (OSError, FileFormatError) as error:
            raise PrecomputedMapsError(str(error)) from None
        trajectory = item.trajectory
        if maps.tokens != trajectory.tokens:
            raise PrecomputedMapsError(
                f"{path} holds maps of {maps.prompt!r}, but {item.sample} shows "
                f"{trajectory.prompt!r} (or its tokens are another tokenizer's)"
            )
        grid = (maps.data.sizes["y"], maps.data.sizes["x"])
        if grid != trajectory.grid:
            raise PrecomputedMapsError(
                f"{path} holds maps of {grid}, but the latents are {trajectory.grid}"
            )
        if maps.image.shape != trajectory.image.shape or _difference(maps, item) > _SAME_IMAGE:
            raise PrecomputedMapsError(f"{path} holds maps of another image than {item.sample}")
        for scored in item.words:
            try:
                maps.at(scored.word)
            except KeyError as error:
                raise PrecomputedMapsError(f"{path}: {error.args[0]}") from None
        return maps

    def settings(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for sample in self.samples:
            digest.update(self._path(sample).read_bytes())
        return {"maps-sha256": digest.hexdigest()}


def _kinds(attributor: TextImageAttributor) -> list[type]:
    """The classes whose code a method is."""
    kinds: list[type] = [type(attributor)]
    if isinstance(attributor, NoiseTunnel):
        kinds.append(type(attributor.attributor))
    return kinds


def _releases(kinds: Iterable[type]) -> list[str]:
    """Whose code a method is, where it isn't ours: what it does changes with their releases."""
    packages = {kind.__module__.partition(".")[0] for kind in kinds} - {"wordlight"}
    return [release for package in sorted(packages) for release in releases_of(package)]


def _difference(maps: AttributionMaps, item: DatasetItem) -> float:
    there = maps.image.astype(np.float64)
    return float(np.abs(there - item.trajectory.image).mean())
