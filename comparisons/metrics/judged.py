"""The objects that metrics judge: an image with a row's maps, and its words, each with its map and
mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from wordlight.attribution.attributor import TextImageAttributor
from wordlight.attribution.maps import AttributionMaps, WordMap
from wordlight.attribution.words import Word
from wordlight.backends.backend import Backend
from wordlight.comparisons.datasets import DatasetItem, ScoredWord
from wordlight.comparisons.metrics.ceiling import mask_on_grid
from wordlight.comparisons.metrics.shown_map import Mask, Scale, ShownMap
from wordlight.comparisons.metrics.word_game import Maps, WordGame


@dataclass(frozen=True)
class Thresholds:
    """The thresholds of a row's maps, normalised and as they are; the calibration split chose
    them."""

    normalised: float
    absolute: float

    def on(self, scale: Scale) -> float:
        """The one for maps on a scale."""
        return self.absolute if scale == "absolute" else self.normalised


class ModelWithoutWords:
    """A model's answers to an image's prompt when words are gone: the same for all rows, and asked
    once.

    Args:
        backend: the model.
        item: the image.
        steps: the number of evenly spaced steps of the word game.
        seed: of the run.
        changes: gives the maps of the method ``regeneration``.
    """

    def __init__(
        self,
        backend: Backend,
        item: DatasetItem,
        *,
        steps: int,
        seed: int,
        changes: Callable[[], AttributionMaps],
    ) -> None:
        self._backend, self._item, self._steps, self._changes = backend, item, steps, changes
        key = [seed, *item.sample.encode()]
        #: Of random draws for this image, whichever row is judged.
        self.seed = int(np.random.SeedSequence(key).generate_state(1)[0])

    @cached_property
    def game(self) -> WordGame:
        """Its target without any of the words."""
        return WordGame(self._backend, self._item.trajectory, steps=self._steps)

    @cached_property
    def changes(self) -> AttributionMaps:
        """The change of the image when it is drawn without a word, at the same noise."""
        return self._changes()


class JudgedImage:
    """An image with one row's maps.

    Args:
        item: the image, with its scored words.
        maps: of the row.
        shuffled: whether each word is judged on the map of another object's word.
        thresholds: the row's, where some were chosen.
        method: the method that made the maps; None for maps from files.
        model: the part of the model that metrics ask; None where none of them asks.
        map_of: gives a scored word's map, where it isn't ``maps.at(word)``.
    """

    def __init__(
        self,
        item: DatasetItem,
        maps: AttributionMaps | None,
        *,
        shuffled: bool = False,
        thresholds: Thresholds | None = None,
        method: TextImageAttributor | None = None,
        model: ModelWithoutWords | None = None,
        map_of: Callable[[ScoredWord], WordMap] | None = None,
    ) -> None:
        self.item = item
        self._maps = maps
        self.shuffled = shuffled
        self._thresholds = thresholds
        self.method = method
        self._model = model
        self._map_of = map_of or self._own_or_partners

    def _own_or_partners(self, scored: ScoredWord) -> WordMap:
        shown = partner(self.item, scored) if self.shuffled else scored
        assert shown is not None
        return self.maps.at(shown.word)

    @cached_property
    def words(self) -> tuple[JudgedWord, ...]:
        """The scored words; of shuffled maps those that have another object's word to take."""
        return tuple(
            JudgedWord(self, scored)
            for scored in self.item.words
            if not self.shuffled or partner(self.item, scored) is not None
        )

    @property
    def headline(self) -> tuple[JudgedWord, ...]:
        """The headline words among them."""
        return tuple(word for word in self.words if word.scored.headline)

    @property
    def maps(self) -> AttributionMaps:
        """All maps, as the method made them."""
        if self._maps is None:
            raise ValueError("there are maps of the scored words alone")
        return self._maps

    @property
    def signed(self) -> bool:
        """True if maps are in the target's units, with values below zero."""
        return self.maps.signed

    @property
    def thresholds(self) -> Thresholds:
        """The maps' thresholds; raises ValueError where nothing was chosen."""
        if self._thresholds is None:
            raise ValueError("no thresholds were chosen: say that the metric needs thresholds")
        return self._thresholds

    @property
    def model(self) -> ModelWithoutWords:
        """The model, to be asked; raises ValueError where the metric doesn't say that it does."""
        if self._model is None:
            raise ValueError("say that the metric needs the word-game or regeneration")
        return self._model

    @property
    def seed(self) -> int:
        """The seed of random draws for this image, the same for every row."""
        return self.model.seed

    @cached_property
    def values(self) -> Maps | None:
        """The maps of all words of the prompt, ``(words, y, x)`` float64, in the word game's
        order; None where some have no map of their own (masks, maps of chosen phrases)."""
        try:
            maps = shuffled_words(self.maps, self.item) if self.shuffled else self.maps
            return np.stack([np.asarray(maps.at(w), np.float64) for w in self.model.game.words])
        except KeyError:
            return None


class JudgedWord:
    """A scored word with its map and the mask that the map should find."""

    def __init__(self, image: JudgedImage, scored: ScoredWord) -> None:
        self.image = image
        self.scored = scored

    @property
    def mask(self) -> Mask:
        """The mask of what the word names, ``(height, width)``, not empty."""
        return self.scored.mask

    @cached_property
    def map(self) -> WordMap:
        """Its map on the latent grid."""
        return self.image._map_of(self.scored)

    @cached_property
    def shown(self) -> ShownMap:
        """Its map at the image's size, on several scales."""
        return ShownMap(self.map)

    @property
    def threshold(self) -> float:
        """The threshold of the row's normalised maps."""
        return self.image.thresholds.normalised

    @property
    def cut(self) -> Mask:
        """The pixels that the map marks: normalised and cut at the row's threshold."""
        return self.shown.mask(self.threshold)

    @cached_property
    def region(self) -> Maps:
        """The share of each latent pixel that the mask covers, ``(y, x)``."""
        return mask_on_grid(self.mask, self.image.item.trajectory.grid).astype(np.float64)

    @property
    def change(self) -> WordMap:
        """The change of the image when it is drawn without the word."""
        return self.image.model.changes.at(self.scored.word)


def partner(item: DatasetItem, scored: ScoredWord) -> ScoredWord | None:
    """The word whose map the shuffled-word control takes for this one, or None.

    A word of another object, with a mask that shares no pixel with this word's; of the same
    category where there is one; among those the next in the prompt, from the start again.
    """
    others = [
        other
        for other in item.words
        if other.referent >= 0
        and other.referent != scored.referent
        and not np.logical_and(other.mask, scored.mask).any()
    ]
    if not others:
        return None
    return min(
        others,
        key=lambda other: (
            other.category != scored.category,
            other.word.start < scored.word.start,
            other.word.start,
        ),
    )


def shuffled_words(maps: AttributionMaps, item: DatasetItem) -> AttributionMaps:
    """The same maps, each word's that of a word of another object; a word that has none (articles,
    the ground, of an image with one object) has the next word's.

    The players of a scored phrase share out the map of the other object's word.
    """
    places = [index for index, player in enumerate(maps.players) if player.is_text]
    taken = dict(zip(places, [*places[1:], *places[:1]], strict=True))
    values = {place: maps.data.values[after] for place, after in taken.items()}
    for scored in item.words:
        other = partner(item, scored)
        if other is not None:
            own = _players_of(maps, places, scored.word)
            share = len(own) if maps.merge == "sum" else 1
            for place in own:
                values[place] = _map_of(maps, places, other.word) / share
    data = maps.data.copy(deep=True)
    for place, value in values.items():
        data.values[place] = value
    return AttributionMaps(
        data,
        maps.players,
        maps.tokens,
        maps.image,
        merge=maps.merge,
        signed=maps.signed,
        provenance=maps.provenance,
    )


def _players_of(maps: AttributionMaps, places: Sequence[int], word: Word) -> list[int]:
    tokens = set(word.tokens)
    return [place for place in places if tokens.issuperset(maps.players[place].tokens)]


def _map_of(
    maps: AttributionMaps, places: Sequence[int], word: Word
) -> npt.NDArray[np.floating[Any]]:
    own = _players_of(maps, places, word)
    if len(own) == 1:
        found: npt.NDArray[np.floating[Any]] = maps.data.values[own[0]]
        return found
    return np.asarray(maps.at(word))


def asked_again(
    image: JudgedImage, embeddings: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.floating[Any]]:
    """Return the method's maps from other embeddings of the same prompt."""
    assert image.method is not None
    other = replace(image.item.trajectory, embeddings=embeddings, predictions=None)
    return image.method.attribute(other).data.values
