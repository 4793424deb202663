"""CLIPSeg: a mask for any words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image as Pictures

from wordlight.backends.segmenters.cache import SegmentationCache
from wordlight.backends.segmenters.classes import THINGS
from wordlight.backends.segmenters.segmenter import (
    Image,
    Mask,
    Segmenter,
    SegmenterLoadError,
    digest_of,
)
from wordlight.backends.segmenters.weights import digest_of_weights, load_network


class ClipSeg(Segmenter):
    """A segmenter by CLIPSeg: masks where the network's probability of a word is at least a
    threshold.

    Lüddecke and Ecker, Image Segmentation Using Text and Image Prompts, arXiv 2112.10003.

    Args:
        model: a Hub id, such as ``CIDAS/clipseg-rd64-refined``, or a folder.
        classes: what it annotates in prompts, where it is to make masks: COCO's 80 things if not
            said. It can be asked for any word.
        threshold: of the probability, 0 to 1.
        revision, device, cache: see ``UniversalSegmenter``.

    Raises:
        SegmenterLoadError: no such model, or a threshold outside 0..1.
    """

    kind: ClassVar[str] = "clipseg"

    def __init__(
        self,
        model: str,
        *,
        cache: Path,
        classes: Sequence[str] = THINGS,
        threshold: float = 0.5,
        revision: str | None = None,
        device: str | None = None,
    ) -> None:
        if not 0 < threshold < 1:
            raise SegmenterLoadError(f"a threshold lies between 0 and 1, not at {threshold}")
        self.network, self.processor, self.revision = load_network(
            self.kind, model, revision, device
        )
        self.model_id = model
        self.classes = tuple(classes)
        self.threshold = threshold
        self.options = {}
        self.cache = SegmentationCache(cache, self.identity)
        self.options = {"threshold": threshold}
        if self.classes != tuple(THINGS):
            self.options["classes"] = digest_of(self.classes)

    @cached_property
    def weights_id(self) -> str:
        return digest_of_weights(self.network)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return self.classes

    def _masks(self, image: Image, words: Sequence[str]) -> list[Mask | None]:
        found: list[Mask | None] = []
        for word in words:
            text = " ".join(word.lower().split())
            shares = self.cache.get(image, text, lambda text=text: self._shares(image, text))  # type: ignore[misc]
            size = (image.shape[1], image.shape[0])
            large = Pictures.fromarray(shares).resize(size, Pictures.Resampling.BILINEAR)
            found.append(np.asarray(large) >= self.threshold)
        return found

    def _shares(self, image: Image, text: str) -> npt.NDArray[np.float32]:
        """The probability at each point of the network's own grid."""
        import torch

        # The largest context that its tokenizer knows cuts what is longer.
        inputs = self.processor(
            text=[text], images=[image], return_tensors="pt", truncation=True, padding=True
        ).to(self.network.device)
        with torch.inference_mode():
            logits = self.network(**inputs).logits
        grid = torch.sigmoid(logits).float().cpu().numpy()
        return np.ascontiguousarray(grid.reshape(grid.shape[-2:]), dtype=np.float32)
