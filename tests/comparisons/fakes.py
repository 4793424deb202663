"""A backend that draws by the renderer, and methods whose answers are known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from wordlight.attribution.attributor import TextImageAttributor
from wordlight.attribution.question import Answer, Question, Size
from wordlight.backends.attention import AttentionMeans, AttentionQuery
from wordlight.backends.backend import Array, Backend, Conditioning, Evaluations
from wordlight.backends.sampling import SamplingFacts
from wordlight.backends.scenes.grammar import Scene
from wordlight.backends.scenes.render import render_scene, rendered
from wordlight.backends.scenes.segment import segment
from wordlight.backends.tokens import PromptTooLongError, Tokens
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.metrics.ceiling import mask_on_grid

#: A word, or a mark.
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
CONTEXT = 32
STEPS = 8


@cache
def scenes_by_prompt() -> dict[str, Scene]:
    scenes = [rendered(split, i).scene for split in ("calibration", "test") for i in range(48)]
    return {scene.prompt: scene for scene in scenes}


def tokenize(prompt: str) -> Tokens:
    spans = [m.span() for m in _WORD.finditer(prompt)]
    if not spans:
        raise ValueError("the prompt is empty")
    if len(spans) > CONTEXT - 2:
        raise PromptTooLongError(f"{len(spans)} tokens, and the context holds {CONTEXT - 2}")
    pads = CONTEXT - 2 - len(spans)
    return Tokens(
        prompt=prompt,
        ids=tuple(range(CONTEXT)),
        texts=("<s>", *(prompt[a:b] for a, b in spans), "</s>", *["<p>"] * pads),
        offsets=((0, 0), *spans, *[(0, 0)] * (pads + 1)),
        kinds=("start", *["text"] * len(spans), "end", *["pad"] * pads),
    )


class FakeBackend(Backend):
    """Draws scenes by the renderer, on a latent grid a quarter of the image's size."""

    framework = "fake"
    model_id = "renderer"
    revision = None
    device = "cpu"
    dtype = "float32"
    capabilities = frozenset({"denoise"})

    def __init__(self, *, blank: bool = False) -> None:
        super().__init__()
        self.blank = blank
        self.drawn: list[str] = []

    @property
    def sampling(self) -> SamplingFacts:
        return SamplingFacts(
            steps=STEPS, guidance_scale=1.0, train_steps=1000, height=64, width=64, multiple=4
        )

    def tokenize(self, prompt: str) -> Tokens:
        return tokenize(prompt)

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        return Conditioning(np.zeros((len(prompts), CONTEXT, 4), np.float32))

    def sample(self, prompts: Any, *, seed: Any = 0, **options: Any) -> Any:
        if isinstance(prompts, str):
            return self._draw(prompts, seed)
        seeds = range(seed, seed + len(prompts)) if isinstance(seed, int) else seed
        return [self._draw(p, s) for p, s in zip(prompts, seeds, strict=True)]

    def _draw(self, prompt: str, seed: int) -> Trajectory:
        self.drawn.append(prompt)
        rng = np.random.default_rng(seed)
        tokens = tokenize(prompt)
        scene = scenes_by_prompt().get(prompt)
        image = np.full((64, 64, 3), 128, np.uint8)
        if scene is not None and not self.blank:
            image = render_scene(scene, rng).image
        return Trajectory(
            prompt=prompt,
            tokens=tokens,
            embeddings=np.zeros((CONTEXT, 4), np.float32),
            empty_embeddings=np.zeros((CONTEXT, 4), np.float32),
            timesteps=np.arange(STEPS, 0, -1).astype(np.float32),
            latents=rng.normal(size=(STEPS, 4, 16, 16)).astype(np.float32),
            image=image,
            guidance_scale=1.0,
            model_id=self.model_id,
            framework=self.framework,
            seed=int(seed),
        )

    def invert(self, images: Any, prompts: Any, **options: Any) -> Any:
        raise NotImplementedError

    def asarray(self, array: npt.ArrayLike) -> Array:
        return np.asarray(array)

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        return np.asarray(array)

    def _denoise(self, latents: Array, timestep: float, conditioning: Conditioning) -> Array:
        raise NotImplementedError

    def _attention(
        self,
        trajectory: Trajectory,
        query: AttentionQuery,
        steps: tuple[int, ...],
        keys: Array | None,
    ) -> AttentionMeans:
        raise NotImplementedError


class Planted(TextImageAttributor):
    """The true mask of every word on the latent grid; all zero for a word that has none."""

    name: ClassVar[str] = "planted"
    family: ClassVar[Literal["attention"]] = "attention"

    def cost(self, size: Size) -> Evaluations:
        return Evaluations(forward=size.steps * self._passes(size.players))

    def _passes(self, players: int) -> int:
        return 1

    def _attribute(self, question: Question) -> Answer:
        trajectory, players = question.trajectory, question.players
        passes = self._passes(len(players))
        self.backend.evaluations.forward += len(question.steps) * passes
        scene = scenes_by_prompt()[trajectory.prompt]
        masks = segment(trajectory.image).word_masks(scene)
        by_start = {scene.words[index].start: mask for index, mask in masks.items()}
        maps = [
            self._of(mask_on_grid(by_start[p.start], trajectory.grid))
            if p.stop > p.start and p.start in by_start
            else np.zeros(trajectory.grid)
            for p in players
        ]
        return Answer(xr.DataArray(np.stack(maps), dims=("word", "y", "x")))

    def _of(self, share: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return share


class Laborious(Planted):
    """The same answer, at a pass a player and sample."""

    name: ClassVar[str] = "laborious"
    effort: ClassVar[str | None] = "n_samples"

    n_samples: int = 50

    def _passes(self, players: int) -> int:
        return players * self.n_samples


class Complement(Planted):
    """Everything but the true mask."""

    name: ClassVar[str] = "complement"

    def _of(self, share: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return 1 - share
