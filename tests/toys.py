"""Models whose answers are known on paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wordlight.backends.attention import AttentionMeans, AttentionQuery
from wordlight.backends.backend import Backend, Conditioning
from wordlight.backends.tokens import Tokens
from wordlight.backends.trajectory import Trajectory

CHANNELS = 3


def toy_tokens(prompt: str, context: int = 12) -> Tokens:
    """One token a space-separated word, with start, end and padding."""
    offsets, place = [], 0
    for word in prompt.split():
        start = prompt.index(word, place)
        place = start + len(word)
        offsets.append((start, place))
    pads = context - len(offsets) - 2
    kinds = ("start", *["text"] * len(offsets), "end", *["pad"] * pads)
    spans = ((0, 0), *offsets, (0, 0), *[(0, 0)] * pads)
    texts = tuple(prompt[a:b] if b else kind for (a, b), kind in zip(spans, kinds, strict=True))
    return Tokens(prompt, tuple(range(context)), texts, spans, kinds)


def toy_trajectory(
    prompt: str = "a red circle and a blue circle",
    steps: int = 3,
    grid: tuple[int, int] = (4, 6),
    seed: int = 0,
    context: int = 12,
) -> Trajectory:
    """A made-up run with random embeddings and latents."""
    rng = np.random.default_rng(seed)
    tokens = toy_tokens(prompt, context)
    height, width = grid
    return Trajectory(
        prompt=prompt,
        tokens=tokens,
        embeddings=rng.standard_normal((len(tokens), 5)),
        empty_embeddings=rng.standard_normal((len(tokens), 5)),
        timesteps=np.linspace(900, 100, steps),
        latents=rng.standard_normal((steps, CHANNELS, *grid)),
        image=rng.integers(0, 255, (4 * height, 4 * width, 3)).astype(np.uint8),
        guidance_scale=3.0,
        model_id="toy",
        framework="numpy",
        seed=seed,
    )


class ToyBackend(Backend):
    """A denoiser in numpy float64: ``ε = x + bend(A·E)``, with A linear in all embeddings.

    With ``bend`` the identity every method that is complete on linear models gives the same.
    """

    framework = "numpy"
    model_id = "toy"
    revision = None
    device = "cpu"
    dtype = "float64"
    capabilities = frozenset({"denoise", "denoise_jvp", "attention"})

    def __init__(
        self,
        grid: tuple[int, int] = (4, 6),
        bend: str = "linear",
        attention: AttentionMeans | None = None,
    ) -> None:
        super().__init__()
        rng = np.random.default_rng(7)
        self.jacobian = rng.standard_normal((CHANNELS, *grid, 12, 5))
        self._bend = bend
        self._means = attention
        self.queries: list[AttentionQuery] = []

    def _push(self, embeddings: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.einsum("cyxtd,btd->bcyx", self.jacobian, embeddings)

    def _denoise(self, latents: Any, timestep: float, conditioning: Conditioning) -> Any:
        push = self._push(conditioning.embeddings)
        return latents + (np.tanh(push) if self._bend == "saturating" else push)

    def _denoise_jvp(
        self, latents: Any, timestep: float, conditioning: Conditioning, tangents: Any
    ) -> Any:
        change = self._push(tangents)
        if self._bend == "saturating":
            change = change / np.cosh(self._push(conditioning.embeddings)) ** 2
        return self._denoise(latents, timestep, conditioning), change

    def _attention(
        self,
        trajectory: Trajectory,
        query: AttentionQuery,
        steps: tuple[int, ...],
        keys: Any = None,
    ) -> AttentionMeans:
        assert self._means is not None
        self.queries.append(query)
        return self._means

    def tokenize(self, prompt: str) -> Tokens:
        return toy_tokens(prompt)

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        raise NotImplementedError

    def sample(self, prompts: Any, **options: Any) -> Any:
        raise NotImplementedError

    def invert(self, images: Any, prompts: Any, **options: Any) -> Any:
        raise NotImplementedError

    def asarray(self, array: npt.ArrayLike) -> Any:
        return np.asarray(array, np.float64)

    def to_numpy(self, array: Any) -> npt.NDArray[Any]:
        return np.asarray(array)


class Formula(ToyBackend):
    """``ε = x + h(e)`` in the first channel, at every pixel, with ``e`` the first numbers of the
    tokens' embeddings, ``(rows, tokens)``; ``slope`` is h's gradient, of the same shape."""

    def __init__(
        self,
        value: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
        slope: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
    ) -> None:
        super().__init__()
        self._value, self._slope = value, slope

    def _denoise(self, latents: Any, timestep: float, conditioning: Conditioning) -> Any:
        return latents + self._pushed(self._value(conditioning.embeddings[:, :, 0]))

    def _denoise_jvp(
        self, latents: Any, timestep: float, conditioning: Conditioning, tangents: Any
    ) -> Any:
        change = (self._slope(conditioning.embeddings[:, :, 0]) * tangents[:, :, 0]).sum(1)
        return self._denoise(latents, timestep, conditioning), self._pushed(change)

    @staticmethod
    def _pushed(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
        first = np.array([1.0] + [0.0] * (CHANNELS - 1))
        return numbers[:, None, None, None] * first[:, None, None]


class Pairs(Formula):
    """ε = x + (e1·e2 + e3): words 1 and 2 act only together, word 3 alone, others not at all."""

    def __init__(self) -> None:
        super().__init__(_product, _product_slope)


def _product(e: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(e[:, 1] * e[:, 2] + e[:, 3])


def _product_slope(e: npt.NDArray[Any]) -> npt.NDArray[Any]:
    slope = np.zeros_like(e)
    slope[:, 1], slope[:, 2], slope[:, 3] = e[:, 2], e[:, 1], 1.0
    return slope
