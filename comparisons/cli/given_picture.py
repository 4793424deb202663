"""A picture that is given, in the place of one that is drawn."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wordlight.attribution.maps import WordMap
from wordlight.backends.backend import Backend, Inversion
from wordlight.backends.sampling import SamplingFacts
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.datasets.files import read_image
from wordlight.comparisons.datasets.judged import resized_image

#: Options of drawing, which say nothing about a picture that is there.
_OF_DRAWING = {"guidance": "--guidance", "negative_prompt": "--negative-prompt"}


@dataclass(frozen=True, eq=False)
class GivenPicture:
    """A picture from a file, turned as its EXIF orientation says.

    Attributes:
        pixels: ``(height, width, 3)`` uint8.
        height, width: the size at which the model sees it; None to choose.
        inversion: the kind of inversion; see ``Backend.invert``.
    """

    pixels: npt.NDArray[np.uint8]
    height: int | None = None
    width: int | None = None
    inversion: Inversion = "noising"

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> GivenPicture | None:
        """Return the picture that ``--image`` names; None where it isn't given.

        Raises ValueError for a file that is no picture, and for options of drawing beside it.
        """
        if arguments.image is None:
            if getattr(arguments, "inversion", None) is not None:
                raise ValueError("--inversion is of a given picture: say which with --image")
            return None
        for name, option in _OF_DRAWING.items():
            if getattr(arguments, name, None) is not None:
                raise ValueError(f"{option} is of drawing: leave it out where --image is given")
        pixels = read_image(Path(arguments.image))
        chosen: Inversion = getattr(arguments, "inversion", None) or "noising"
        return cls(pixels, arguments.height, arguments.width, chosen)

    def seen_size(self, facts: SamplingFacts) -> tuple[int, int]:
        """Height and width that the model sees it at: as it is shaped, with about as many pixels as
        the model draws, unless a side is said.

        Raises ValueError for sides that the model can't have.
        """
        height, width = self.pixels.shape[:2]
        if self.height is not None and self.width is not None:
            return facts.size_of(self.height, self.width)
        scale = math.sqrt(facts.height * facts.width / (height * width))
        if self.height is not None:
            scale = self.height / height
        elif self.width is not None:
            scale = self.width / width

        def fitting(side: int) -> int:
            return max(1, round(side * scale / facts.multiple)) * facts.multiple

        return facts.size_of(self.height or fitting(height), self.width or fitting(width))

    def trajectory(self, backend: Backend, prompt: str, *, seed: int) -> Trajectory:
        """Return the trajectory of the picture: with noise, as the model sees it."""
        image = resized_image(self.pixels, self.seen_size(backend.sampling))
        (trajectory,) = backend.invert([image], [prompt], seed=seed, by=self.inversion)
        return trajectory

    def at_own_size(self, word_map: WordMap) -> WordMap:
        """A map of what the model saw, over the picture as it was given."""
        return replace(word_map, image=self.pixels)
