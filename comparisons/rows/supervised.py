"""Supervised segmenters: they make masks for images that have none, or stand in the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from wordlight.attribution.maps import AttributionMaps, Provenance, WordMap
from wordlight.attribution.words import Word, WordKey
from wordlight.backends.segmenters.classes import is_stuff
from wordlight.backends.segmenters.loading import load_segmenter
from wordlight.backends.segmenters.matching import places_of_classes
from wordlight.backends.segmenters.segmenter import Segmenter, SegmenterLoadError
from wordlight.comparisons.datasets.dataset import Annotation
from wordlight.comparisons.datasets.item import DatasetItem, Mask
from wordlight.comparisons.metrics.shown_map import MaskMap
from wordlight.comparisons.rows.map_sources import MapSource
from wordlight.comparisons.rows.row import Row, Variant
from wordlight.comparisons.store.cells import check_name

SUPERVISED = "supervised"


class SegmenterAnnotator:
    """Annotates an image with what a segmenter finds of the classes that the prompt names."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter

    @property
    def identity(self) -> str:
        """The segmenter's."""
        return self.segmenter.identity

    def annotate(
        self, prompt: str, image: npt.NDArray[np.uint8]
    ) -> tuple[list[Annotation], list[str]]:
        """The words that it finds, with their masks, and those that it doesn't find."""
        named = places_of_classes(prompt, self.segmenter.vocabulary, self.segmenter.synonyms)
        found: list[Annotation] = []
        missed: list[str] = []
        for name, mask in zip(named, self.segmenter.masks(image, list(named)), strict=True):
            places = named[name]
            place: WordKey = places[0] if len(places) == 1 else list(places)
            if mask is None or not mask.any():
                missed.append(name)
            else:
                found.append(Annotation(place, mask, "stuff" if is_stuff(name) else "object"))
        return found, missed


class MaskMaps(AttributionMaps):
    """Masks in the place of maps, for the words that are scored."""

    def __init__(self, item: DatasetItem, masks: Mapping[Word, Mask], who: str) -> None:
        words = list(masks)
        height, width = item.trajectory.image.shape[:2]
        stack = np.stack([masks[word] for word in words]) if words else np.zeros((0, height, width))
        super().__init__(
            xr.DataArray(stack.astype(np.float32), dims=("word", "y", "x")),
            words,
            item.trajectory.tokens,
            item.trajectory.image,
            merge="mean",
            signed=False,
            provenance=Provenance(who),
        )
        self._masks = dict(masks)

    def at(self, word: Word) -> WordMap:
        """The mask of a scored word; raises KeyError for another."""
        if word not in self._masks:
            raise KeyError(f"{word.text!r} was not segmented")
        return MaskMap(word, self._masks[word].astype(np.float32), False, self.image)


class SegmenterMaps(MapSource):
    """A segmenter's masks as maps of the words; nothing where it has no class for the word, as the
    paper of origin counts it (arXiv 2210.04885)."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter

    def maps(self, item: DatasetItem, kept: Path) -> AttributionMaps:
        image, prompt = item.trajectory.image, item.trajectory.prompt
        words = [scored.word for scored in item.words]
        # Several places of a word name the same things: the first is asked for.
        texts = [prompt[slice(*word.spans[0])] for word in words]
        found = self.segmenter.masks(image, texts)
        nothing = np.zeros(image.shape[:2], bool)
        masks = {w: nothing if m is None else m for w, m in zip(words, found, strict=True)}
        return MaskMaps(item, masks, self.segmenter.kind)

    def settings(self) -> dict[str, Any]:
        return {"segmenter": self.segmenter.identity}


def mask_maker(masks: str | Segmenter | None, device: str | None) -> SegmenterAnnotator | None:
    """Return a maker of masks for images that have none; raises SegmenterLoadError."""
    if masks is None:
        return None
    loaded = load_segmenter(masks, device=device) if isinstance(masks, str) else masks
    return SegmenterAnnotator(loaded)


def supervised_rows(
    segmenters: Mapping[str, str | Segmenter],
    maker: SegmenterAnnotator | None,
    taken: Iterable[str],
    device: str | None,
) -> tuple[tuple[Row, ...], tuple[tuple[str, str], ...]]:
    """Rows of supervised segmenters, and the names of those that can't be loaded, with why.

    Args:
        segmenters: by the names of their rows.
        maker: the segmenter that made the masks: it is never judged by its own masks.
        taken: the names of other rows.
        device: to load them on.

    Raises:
        ValueError: a name that is taken, a segmenter that made the masks.
    """
    rows: list[Row] = []
    not_measured: list[tuple[str, str]] = []
    names = set(taken)
    for name, given in segmenters.items():
        if check_name(name) in names:
            raise ValueError(f"two rows would be called {name!r}")
        names.add(name)
        try:
            loaded = load_segmenter(given, device=device) if isinstance(given, str) else given
        except SegmenterLoadError as error:
            not_measured.append((name, str(error)))
            continue
        if maker is not None and maker.segmenter.same_weights(loaded):
            raise ValueError(
                f"{name} made the masks: judged by them it would be perfect, so it can't be a row"
            )
        rows.append(Row(name, name, (Variant(name, SegmenterMaps(loaded)),), SUPERVISED))
    return tuple(rows), tuple(not_measured)
