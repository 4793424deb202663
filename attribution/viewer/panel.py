"""One panel of the viewer: an image with the maps of one method, as plain data for the script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from wordlight.attribution.maps import AttributionMaps, WordMap
from wordlight.attribution.resize import average_down, frames_behind
from wordlight.attribution.viewer.packing import data_uri, pack_maps, pack_mask
from wordlight.attribution.words import Word
from wordlight.backends.trajectory import still_of
from wordlight.backends.vocabulary import unknown_words_sentence

Maps = npt.NDArray[np.float32]

#: Most bytes (in base64) of maps that are kept apart by step, layer or head: they are shown on a
#: coarser grid where they would take more.
_MOST_APART = 800_000


@dataclass(frozen=True, eq=False)
class Panel:
    """The content of one panel.

    Attributes:
        label: its name, such as the method's.
        prompt: the text that the words are of.
        players: the words that have a map.
        maps: ``(player, y, x)``.
        image: ``(height, width, 3)`` uint8.
        frames: of a video the image of each latent frame, ``(frame, height, width, 3)``.
        signed: whether values below zero speak against a word.
        facts: the facts below the label, by name.
        axes: the labels along each axis that was kept, by its name.
        apart: maps of each along these axes, ``(player, *axes, y, x)``, where any were kept.
        masks: the true mask of some players, ``(height, width)`` bool; drawn as outlines.
        negative: whether the words are those of the negative prompt.
        warning: a caveat for readers of the maps, or nothing.
    """

    label: str
    prompt: str
    players: tuple[Word, ...]
    maps: Maps
    image: npt.NDArray[np.uint8]
    signed: bool
    facts: Mapping[str, str] = field(default_factory=dict)
    axes: Mapping[str, list[Any]] = field(default_factory=dict)
    apart: Maps | None = None
    masks: Mapping[Word, npt.NDArray[np.bool_]] = field(default_factory=dict)
    frames: npt.NDArray[np.uint8] | None = None
    negative: bool = False
    warning: str = ""

    @classmethod
    def of(
        cls,
        maps: AttributionMaps,
        label: str | None = None,
        masks: Mapping[Word, npt.NDArray[np.bool_]] | None = None,
    ) -> Panel:
        """A panel of a method's maps, under the method's name where no label is given."""
        extra = [str(axis) for axis in maps.data.dims[1:-2]]
        return cls(
            label=maps.provenance.method if label is None else label,
            prompt=maps.prompt,
            players=maps.players,
            maps=np.stack([_flat(maps.at(player)) for player in maps.players]),
            image=still_of(maps.image),
            frames=maps.frame_images if maps.is_video else None,
            signed=maps.signed,
            facts=_facts(maps),
            axes={axis: maps.data.coords[axis].values.tolist() for axis in extra},
            apart=maps.data.values if extra else None,
            masks=masks or {},
            negative=maps.provenance.settings.get("words_of") == "negative",
            warning=_warning(maps),
        )

    @classmethod
    def of_word(cls, word_map: WordMap) -> Panel:
        """A panel of one word's map alone."""
        text = word_map.word.text
        alone = Word(text, 0, len(text), word_map.word.tokens or (0,))
        maps = _flat(word_map)[None]
        image, signed = word_map.image, word_map.signed
        if not word_map.is_video:
            return cls("", text, (alone,), maps, image, signed)
        behind = frames_behind(len(word_map.values), len(image))
        labels = list(range(len(word_map.values)))
        return cls(
            "",
            text,
            (alone,),
            maps,
            still_of(image),
            signed,
            axes={"frame": labels},
            apart=np.asarray(word_map)[None],
            frames=image[[behind.index(frame) for frame in labels]],
        )

    def plain(self, longest: int | None = None, *, with_image: bool = True) -> dict[str, Any]:
        """Everything but the players, as JSON has it; images are reduced to ``longest`` pixels."""
        height, width = self.image.shape[:2]
        return {
            "label": self.label,
            "facts": dict(self.facts),
            "signed": self.signed,
            "image": {
                "source": data_uri(self.image, longest) if with_image else None,
                "height": height,
                "width": width,
                "frames": []
                if self.frames is None
                else [data_uri(frame, longest) for frame in self.frames],
            },
            "maps": pack_maps(self.maps),
            "axes": [
                {"name": name, "labels": [str(one) for one in labels]}
                for name, labels in self.axes.items()
            ],
            "apart": None if self.apart is None else _pack_apart(self.apart),
            "masks": {self.players.index(word): pack_mask(m) for word, m in self.masks.items()},
        }


def _flat(word_map: WordMap) -> Maps:
    """A map ``(y, x)``; of a video the mean of its frames."""
    values = np.asarray(word_map)
    return values.mean(axis=0) if word_map.is_video else values


def _facts(maps: AttributionMaps) -> dict[str, str]:
    origin = maps.provenance
    facts = {
        "model": origin.model_id,
        "framework": origin.framework,
        "seed": "" if origin.seed is None else str(origin.seed),
    }
    return {name: value for name, value in facts.items() if value}


def _warning(maps: AttributionMaps) -> str:
    """A sentence about words that the model was never trained on, where there are any."""
    texts = [maps.prompt, *(word.text for word in maps.outside)]
    return unknown_words_sentence(maps.provenance.model_id, " ".join(texts)) or ""


def _pack_apart(maps: Maps) -> dict[str, Any]:
    packed = pack_maps(maps, bits=8)
    while len(packed["levels"]) > _MOST_APART and min(maps.shape[-2:]) > 8:
        maps = _halved(maps)
        packed = pack_maps(maps, bits=8)
    return packed


def _halved(maps: Maps) -> Maps:
    """Averages of two by two places; an odd side repeats its last row or column."""
    height, width = maps.shape[-2:]
    pads = [(0, 0)] * (maps.ndim - 2) + [(0, height % 2), (0, width % 2)]
    even = np.pad(maps, pads, mode="edge")
    return average_down(even, (even.shape[-2] // 2, even.shape[-1] // 2)).astype(np.float32)
