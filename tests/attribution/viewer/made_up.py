"""Made-up maps of any prompt, size and kind, for the viewer to show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from wordlight.attribution.maps import AttributionMaps, Provenance
from wordlight.attribution.words import PromptWords, Word
from wordlight.backends.tokens import Tokens


def tokens_of(pieces: Sequence[str], context: int | None = None) -> Tokens:
    """A prompt of these pieces, each a token; blanks between belong to none."""
    prompt = "".join(pieces)
    spans, place = [], 0
    for piece in pieces:
        if piece.strip(" "):
            spans.append((place, place + len(piece)))
        place += len(piece)
    pads = (context or len(spans) + 3) - len(spans) - 2
    kinds = ("start", *["text"] * len(spans), "end", *["pad"] * pads)
    offsets = ((0, 0), *spans, *[(0, 0)] * (1 + pads))
    texts = tuple(prompt[a:b] or kind for (a, b), kind in zip(offsets, kinds, strict=True))
    return Tokens(prompt, tuple(range(len(kinds))), texts, offsets, kinds)


def blobs(count: int, grid: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[Any]:
    """Smooth maps with one peak each, of different heights."""
    y, x = np.mgrid[: grid[0], : grid[1]]
    tops = rng.random((count, 2)) * grid
    wide = np.minimum(*grid) * (0.1 + 0.2 * rng.random(count))
    far = (y - tops[:, 0, None, None]) ** 2 + (x - tops[:, 1, None, None]) ** 2
    return (0.5 + rng.random(count))[:, None, None] * np.exp(-far / wide[:, None, None] ** 2 / 2)


def maps_of(
    prompt: str | Tokens = "a dog and a ball",
    values: npt.NDArray[Any] | None = None,
    *,
    signed: bool = False,
    grid: tuple[int, int] = (16, 16),
    scale: int = 4,
    players: Sequence[Word] | None = None,
    axes: dict[str, list[Any]] | None = None,
    method: str = "made-up",
    image: npt.NDArray[np.uint8] | None = None,
    model: str = "toy",
    negative: bool = False,
) -> AttributionMaps:
    """Maps of a prompt on a grid, over an image ``scale`` times as large.

    ``negative`` says that the prompt is the one that guidance pushes away from.
    """
    rng = np.random.default_rng(3)
    axes = axes or {}
    if isinstance(prompt, str):
        prompt = tokens_of([p for word in prompt.split(" ") for p in (" ", word)][1:])
    players = PromptWords.of(prompt).players if players is None else players
    lengths = [len(labels) for labels in axes.values()]
    if values is None:
        total = len(players) * int(np.prod(lengths, dtype=int))
        values = blobs(total, grid, rng).reshape(len(players), *lengths, *grid)
        if signed:
            values = values - values[..., ::-1]
    if image is None:
        y, x = np.mgrid[: grid[0] * scale, : grid[1] * scale]
        image = np.stack(
            [x * 255 // x.max(), y * 255 // y.max(), 255 - x * 200 // x.max()], axis=-1
        )
    return AttributionMaps(
        xr.DataArray(values, dims=("word", *axes, "y", "x"), coords=axes),
        players,
        prompt,
        image.astype(np.uint8),
        merge="sum",
        signed=signed,
        provenance=Provenance(
            method,
            {"words_of": "negative"} if negative else {},
            model_id=model,
            framework="numpy",
            seed=3,
        ),
    )
