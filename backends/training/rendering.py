"""Rendering the training images, in processes of their own where there are CPUs for it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from wordlight.backends.training.blueprints import BLUEPRINTS, Blueprint
from wordlight.backends.training.places import place_targets

SHARD = 5_000
#: Images that a process renders at once.
_CHUNK = 250

Rendered = dict[str, npt.NDArray[Any]]


def shards_of(images: int) -> range:
    """Return the numbers of the shards that so many images have; raises ValueError."""
    if images % SHARD and images > SHARD:
        raise ValueError(f"the number of images must be a multiple of {SHARD}, not {images}")
    return range(-(-images // SHARD))


def render(blueprint: Blueprint, split: str, indices: Sequence[int]) -> Rendered:
    """Return a split's ``images``, ``(n, 64, 64, 3)`` uint8, token ``ids`` ``(n, context)``, and
    the places of ``place_targets``."""
    tokenizer = blueprint.tokens.build_tokenizer()
    items = [blueprint.data.rendered(split, index) for index in indices]
    data = {
        "ids": token_ids(tokenizer, [item.scene.prompt for item in items]),
        **place_targets(blueprint, tokenizer, items),
    }
    images = np.stack([item.image for item in items])
    return {"images": images, **{name: values.numpy() for name, values in data.items()}}


def _render_by_name(name: str, split: str, indices: range) -> Rendered:
    """Call ``render`` in another process, on one thread."""
    torch.set_num_threads(1)
    return render(BLUEPRINTS[name], split, indices)


class RenderedShards:
    """A split's images in shards of 5000; with ``workers``, so many processes render some shards
    ahead, in the order given."""

    def __init__(
        self,
        blueprint: Blueprint,
        split: str,
        images: int,
        workers: int = 1,
        ahead: Iterable[int] = (),
    ) -> None:
        self._blueprint, self._split, self._images = blueprint, split, images
        self._ahead: dict[int, list[Future[Rendered]]] = {}
        shards = list(ahead) if workers > 1 else []
        if shards:
            names = [name for name, found in BLUEPRINTS.items() if found is blueprint]
            if not names:
                raise ValueError("processes find a blueprint by its name: take one of BLUEPRINTS")
            pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
            for shard in shards:
                indices = self._indices(shard)
                self._ahead[shard] = [
                    pool.submit(_render_by_name, names[0], split, indices[start : start + _CHUNK])
                    for start in range(0, len(indices), _CHUNK)
                ]
            pool.shutdown(wait=False)

    def take(self, shard: int) -> Rendered:
        """Return what ``render`` gives of a shard; it isn't kept."""
        if shard not in self._ahead:
            return render(self._blueprint, self._split, self._indices(shard))
        parts = [future.result() for future in self._ahead.pop(shard)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _indices(self, shard: int) -> range:
        return range(shard * SHARD, min((shard + 1) * SHARD, self._images))


def render_images(blueprint: Blueprint, split: str, images: int, workers: int) -> torch.Tensor:
    """Return a split's first images, ``(images, 3, 64, 64)`` uint8, rendered by ``workers``
    processes."""
    shards = range(-(-images // SHARD))
    rendered = RenderedShards(blueprint, split, images, workers, shards)
    pixels = torch.empty(images, 3, 64, 64, dtype=torch.uint8)
    for part, shard in zip(pixels.split(SHARD), shards, strict=True):
        part.copy_(torch.from_numpy(rendered.take(shard)["images"]).permute(0, 3, 1, 2))
    return pixels


def token_ids(tokenizer: object, prompts: list[str]) -> torch.Tensor:
    """Padded token ids, ``(batch, context)``."""
    assert callable(tokenizer)
    encoded = tokenizer(prompts, padding="max_length", return_tensors="pt")
    ids: torch.Tensor = encoded.input_ids
    return ids
