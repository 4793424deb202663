"""A model that paints what each word says where it says, and maps that are known on paper."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from tests.comparisons.fakes import tokenize
from tests.toys import ToyBackend
from wordlight.attribution.attributor import TextImageAttributor
from wordlight.attribution.question import Answer, Question, Size
from wordlight.backends.backend import Evaluations
from wordlight.backends.trajectory import Trajectory

Image = npt.NDArray[np.uint8]
#: Pixels a side; the latent grid is as large, so that no map is ever resized.
SIDE = 64


class Painter(ToyBackend):
    """Draws ``paint(prompt, seed)``, and notes what it was asked to draw."""

    model_id = "painter"

    def __init__(self, paint: Callable[[str, int], Image]) -> None:
        super().__init__()
        self.paint = paint
        self.asked: list[tuple[str, int]] = []

    def tokenize(self, prompt: str) -> Any:
        return tokenize(prompt)

    def sample(self, prompts: Any, *, seed: Any = 0, **options: Any) -> Any:
        return [self._painted(p, s) for p, s in zip(prompts, seed, strict=True)]

    def _painted(self, prompt: str, seed: int) -> Trajectory:
        self.asked.append((prompt, seed))
        tokens = tokenize(prompt)
        empty = np.zeros((len(tokens), 2))
        image = self.paint(prompt, seed)
        return Trajectory(
            prompt=prompt,
            tokens=tokens,
            embeddings=empty,
            empty_embeddings=empty,
            timesteps=np.linspace(900, 100, 4),
            latents=np.zeros((4, 3, *image.shape[:2])),
            image=image,
            guidance_scale=1.0,
            model_id=self.model_id,
            framework="numpy",
            seed=seed,
        )


def words_of(prompt: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", prompt)


def planted(regions: Mapping[str, Any]) -> type[TextImageAttributor]:
    """A method whose map of a word is 1 in the word's region, and 0 elsewhere."""

    class Planted(TextImageAttributor):
        name: ClassVar[str] = "planted"
        family: ClassVar[Literal["attention"]] = "attention"

        def cost(self, size: Size) -> Evaluations:
            return Evaluations()

        def _attribute(self, question: Question) -> Answer:
            maps = np.zeros((len(question.players), *question.trajectory.grid))
            for index, player in enumerate(question.players):
                if player.text in regions:
                    maps[index][regions[player.text]] = 1
            return Answer(xr.DataArray(maps, dims=("word", "y", "x")))

    return Planted
