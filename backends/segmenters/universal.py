"""Mask2Former and OneFormer: a class for every pixel, out of those that they were trained on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from wordlight.backends.segmenters.cache import SegmentationCache
from wordlight.backends.segmenters.classes import plain
from wordlight.backends.segmenters.matching import Synonyms, classes_of
from wordlight.backends.segmenters.segmenter import Image, Mask, Segmenter, SegmenterLoadError
from wordlight.backends.segmenters.weights import digest_of_weights, load_network

TASKS = ("panoptic", "instance", "semantic")


class UniversalSegmenter(Segmenter):
    """A class for every pixel; a word's mask is that of the classes which it names.

    Args:
        model: a Hub id, such as ``facebook/mask2former-swin-base-coco-panoptic``, or a folder.
        task: the reading of its answer: ``"panoptic"`` and ``"instance"`` leave pixels without a
            class where it is not sure, ``"semantic"`` none.
        synonyms: the words that name a class beside its name; the package's own if None.
        revision: of a Hub id.
        device: a GPU where there is one, if None.
        cache: the folder in which its answers are kept.

    Raises:
        SegmenterLoadError: no such model, or an unknown task.
    """

    def __init__(
        self,
        model: str,
        *,
        cache: Path,
        task: str = "panoptic",
        synonyms: Synonyms | None = None,
        revision: str | None = None,
        device: str | None = None,
    ) -> None:
        if task not in TASKS:
            raise SegmenterLoadError(f"task must be one of {', '.join(TASKS)}, not {task!r}")
        self.network, self.processor, self.revision = load_network(
            self.kind, model, revision, device
        )
        self.model_id = model
        self.task = task
        self.synonyms = synonyms
        self.options = {"task": task}
        self.names = {int(k): plain(v) for k, v in self.network.config.id2label.items()}
        self.cache = SegmentationCache(cache, self.identity)

    @cached_property
    def weights_id(self) -> str:
        return digest_of_weights(self.network)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.names.values()))

    def _masks(self, image: Image, words: Sequence[str]) -> list[Mask | None]:
        labels = self.cache.get(image, self.task, lambda: self._labels(image))
        found: list[Mask | None] = []
        for word in words:
            named = classes_of(word, self.vocabulary, self.synonyms)
            numbers = [number for number, name in self.names.items() if name in named]
            found.append(np.isin(labels, numbers) if numbers else None)
        return found

    def _labels(self, image: Image) -> npt.NDArray[np.int32]:
        """The class of each pixel, -1 for none."""
        import torch

        inputs = self._inputs(image).to(self.network.device)
        with torch.inference_mode():
            outputs = self.network(**inputs)
        size = (image.shape[0], image.shape[1])
        read = getattr(self.processor, f"post_process_{self.task}_segmentation")
        extra: dict[str, Any] = {}
        if self.task == "panoptic":
            extra["label_ids_to_fuse"] = set()
        outputs, sizes = self._at_size(outputs, size)
        (answer,) = read(outputs, target_sizes=sizes, **extra)
        if self.task == "semantic":
            return answer.cpu().numpy().astype(np.int32)  # type: ignore[no-any-return]
        segments = answer["segmentation"].cpu().numpy()
        labels = np.full(size, -1, np.int32)
        for one in answer["segments_info"]:
            labels[segments == one["id"]] = one["label_id"]
        return labels

    def _inputs(self, image: Image) -> Any:
        return self.processor(images=image, return_tensors="pt")

    def _at_size(
        self, outputs: Any, size: tuple[int, int]
    ) -> tuple[Any, list[tuple[int, int]] | None]:
        """Return the processor's input, with the size to which it brings the masks."""
        return outputs, [size]


class Mask2Former(UniversalSegmenter):
    """Cheng et al., Masked-attention Mask Transformer, arXiv 2112.01527."""

    kind: ClassVar[str] = "mask2former"


class OneFormer(UniversalSegmenter):
    """Jain et al., One Transformer to Rule Universal Image Segmentation, arXiv 2211.06220."""

    kind: ClassVar[str] = "oneformer"

    def _inputs(self, image: Image) -> Any:
        inputs = self.processor(images=image, task_inputs=[self.task], return_tensors="pt")
        # What only its training looks at.
        inputs.pop("text_inputs", None)
        return inputs

    def _at_size(
        self, outputs: Any, size: tuple[int, int]
    ) -> tuple[Any, list[tuple[int, int]] | None]:
        """The processor brings segments to a size with torchvision, which need not be there: it is
        given masks of that size, resized as it would: of instances as they are, else as
        probabilities."""
        import torch

        if self.task == "semantic":
            return outputs, [size]
        masks = outputs.masks_queries_logits
        if self.task == "panoptic":
            masks = masks.sigmoid()
        masks = torch.nn.functional.interpolate(masks, size, mode="bilinear", antialias=True)
        if self.task == "panoptic":
            masks = torch.logit(masks.clamp(1e-7, 1 - 1e-7))
        outputs.masks_queries_logits = masks
        return outputs, None
