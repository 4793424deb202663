"""``AttributionMaps``: the answer of every method, one map a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from wordlight.attribution.probes import root_sum_square
from wordlight.attribution.resize import frames_behind, resize_places
from wordlight.attribution.words import PromptWords, Word, WordKey
from wordlight.backends.arrays_file import FileFormatError, read_arrays, write_arrays
from wordlight.backends.tokens import Tokens
from wordlight.backends.trajectory import check_image, check_numbers

if TYPE_CHECKING:
    from PIL.Image import Image

    from wordlight.attribution.plotting import PaperFigure
    from wordlight.attribution.viewer import Viewer

_KIND, _VERSION = "attribution maps", 2

#: How far two float32 values may differ by rounding alone, relative to the larger one.
_ROUNDING = 1e-6

#: How the maps of several tokens become one: attention by mean, additive methods by sum, norms of
#: slopes by the root of the sum of squares.
Merge = Literal["mean", "sum", "root-sum-square"]


@dataclass(frozen=True)
class Provenance:
    """The origin of maps: the method and its settings, the model, the run, the cost.

    ``seconds`` and the counts of denoiser evaluations (rows; ``forward_equivalents`` weighs a
    forward-mode product 2 and a reverse one 3) are of the whole ``attribute`` call;
    ``peak_bytes`` is None where the device doesn't tell. ``compile_seconds`` is what a framework
    that compiles took for it, and is no part of ``seconds``: a second call doesn't take it again.
    ``halvings`` says how often the device's memory ran out, after which batches half as large went
    on. ``completeness_error`` is how much of the target all maps together miss or exceed, as a
    share of it and averaged over steps (``ConvergenceDelta.error``); None of maps that aren't
    shares. ``precision`` is the one in which float32 was multiplied, see ``Backend.precision``.
    ``probes`` is how many random probes are behind each map that is an estimated norm, 0 elsewhere.
    """

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    model_id: str = ""
    revision: str | None = None
    framework: str = ""
    seed: int | None = None
    forward: int = 0
    jvp: int = 0
    vjp: int = 0
    forward_equivalents: int = 0
    seconds: float = 0.0
    peak_bytes: int | None = None
    compile_seconds: float = 0.0
    halvings: int = 0
    completeness_error: float | None = None
    precision: str = ""
    probes: int = 0


@dataclass(frozen=True, eq=False)
class WordMap:
    """One word's map; ``numpy.asarray`` of it is the array, ``(y, x)`` float32, of a video
    ``(frame, y, x)``.

    The array is on the latent grid, which has fewer frames than a video; ``resized``, ``mask`` and
    ``overlay`` bring it to the image, and each of a video's frames has the map of the latent frame
    that it was decoded from (``resize.frames_behind``).

    Raises ValueError for values that aren't finite: they would be above or below every threshold.
    """

    word: Word
    values: npt.NDArray[np.float32]
    signed: bool
    image: npt.NDArray[np.uint8]

    def __post_init__(self) -> None:
        check_numbers(f"the values of the map of {self.word.text!r}", self.values)

    def __repr__(self) -> str:
        grid = "x".join(map(str, self.shape))
        return (
            f"WordMap({self.word.text!r}, {grid}, {self.values.min():.3g}..{self.values.max():.3g})"
        )

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        return np.array(self.values, dtype=dtype, copy=copy)

    @property
    def shape(self) -> tuple[int, ...]:
        """Height and width of the latent grid, of a video behind the number of its frames."""
        return self.values.shape

    @property
    def is_video(self) -> bool:
        """True for maps of a video."""
        return self.values.ndim == 3

    @property
    def _size(self) -> tuple[int, ...]:
        """The image's height and width, behind a video's number of frames."""
        return self.image.shape[:-1]

    def resized(self) -> npt.NDArray[np.float32]:
        """The map at the image's size, bicubic."""
        return resize_places(self.values, self._size).astype(np.float32)

    @property
    def blank(self) -> bool:
        """True if there is nothing to show: the map is nowhere positive, or the same everywhere.

        Differences that are float32 rounding don't count.
        """
        low, high = float(self.values.min()), float(self.values.max())
        least = _ROUNDING * max(abs(low), abs(high))
        return high <= least or high - low <= least

    def normalised(self) -> npt.NDArray[np.float32]:
        """The map at the image's size, from 0 (least) to 1 (most); all zeros for a blank map."""
        if self.blank:
            return np.zeros(self._size, np.float32)
        return normalise(self.resized(), signed=self.signed)

    def mask(self, threshold: float = 0.4) -> npt.NDArray[np.bool_]:
        """Return a boolean mask of the image's size, true where the normalised map is at least
        ``threshold``.

        The mask of a blank map is empty. (Scores are made otherwise: there a constant map is the
        whole image.)

        Raises ValueError for a threshold outside 0..1.
        """
        if not isinstance(threshold, Real):
            raise TypeError(f"a threshold is a number, not {threshold!r}")
        if not 0.0 <= threshold <= 1.0:
            raise ValueError(f"a threshold lies between 0 and 1, not at {threshold}")
        if self.blank:
            return np.zeros(self._size, np.bool_)
        return self.normalised() >= threshold

    def overlay(self, opacity: float = 0.65, *, frame: int | None = None) -> Image:
        """The image with this map laid over it; of a video one ``frame``, the middle one if None.

        Raises ValueError for a frame of what is no video, or one that it hasn't.
        """
        from wordlight.attribution.pictures import overlay

        if not self.is_video:
            if frame is not None:
                raise ValueError(f"frame={frame}, but this is a map of one image")
            return overlay(self.image, self.normalised(), opacity)
        chosen = len(self.image) // 2 if frame is None else frame
        if not 0 <= chosen < len(self.image):
            raise ValueError(f"no frame {chosen}: the video has {len(self.image)}, counted from 0")
        return overlay(self.image[chosen], self.normalised()[chosen], opacity)

    def to_html(self, path: str | Path) -> Path:
        """Write a page that shows the map, without need of a network, and return its path."""
        return self._viewer().to_html(path)

    def _viewer(self) -> Viewer:
        from wordlight.attribution.viewer import Panel, Viewer

        return Viewer([Panel.of_word(self)], pinned=[0])

    def _repr_html_(self) -> str:
        return self._viewer()._repr_html_()


def _counted(n_tokens: int) -> str:
    return f"{n_tokens} token{'' if n_tokens == 1 else 's'}"


#: What selects a map.
MapKey: TypeAlias = WordKey | Word


def normalise(values: npt.NDArray[np.float32], *, signed: bool) -> npt.NDArray[np.float32]:
    """Min-max to 0..1, as the paper does it a map; a constant map becomes all ones, as scores want
    it (``WordMap.normalised`` shows nothing).

    Of a signed map only the positive part counts: what speaks for the word.
    """
    if signed:
        values = np.maximum(values, 0)
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return np.ones_like(values, dtype=np.float32)
    return ((values - low) / (high - low)).astype(np.float32)


class AttributionMaps(Mapping[MapKey, WordMap]):
    """Maps over an image, one for each player: every word, punctuation mark and special position.

    Select with ``maps["circle"]``, a phrase ``maps["red circle"]`` (merged as the method says),
    an occurrence ``maps["circle", 1]`` (from 0), a character span ``maps[2:5]``, several of these
    as one ``maps[["red", ("circle", 0)]]`` (merged likewise), or ``"<start>"``, ``"<end>"``,
    ``"<pad>"``. Words that aren't in the prompt, where a method was asked about such,
    go by their texts. A ``Word``, as ``words`` and ``players`` hold them, selects itself.

    It is a mapping: iteration gives one key a player, in order (a text, with its occurrence where
    the text occurs several times), and ``key in maps`` says whether ``maps[key]`` has an answer.

    ``data`` is the labelled array, ``(word, y, x)`` on the latent grid, with ``step``, ``layer``
    and ``head`` before ``y`` where the method kept them; ``numpy.asarray(maps)`` is its values. Of
    a video there is an axis ``frame`` right before ``y``, of the latents' frames.

    Args:
        data: dimensions ``word``, then any of ``step``, ``layer``, ``head``, of a video ``frame``,
            then ``y``, ``x``; one entry a player.
        players: the words along ``word``, in order.
        tokens: the prompt as the encoder saw it.
        image: ``(height, width, 3)`` uint8; of a video ``(frames, height, width, 3)``.
        merge: the rule that merges maps of several tokens.
        signed: whether values below zero speak against the word.
        provenance: the origin of the maps.

    Raises:
        ValueError: dimensions that don't fit, or values that aren't finite.
    """

    def __init__(
        self,
        data: xr.DataArray,
        players: Sequence[Word],
        tokens: Tokens,
        image: npt.NDArray[np.uint8],
        *,
        merge: Merge,
        signed: bool,
        provenance: Provenance,
    ) -> None:
        if data.dims[0] != "word" or data.dims[-2:] != ("y", "x"):
            raise ValueError(f"dimensions must be (word, ..., y, x), not {data.dims}")
        video = data.dims[-3] == "frame"
        if unknown := set(data.dims[1 : -3 if video else -2]) - {"step", "layer", "head"}:
            raise ValueError(f"unknown dimensions {sorted(map(str, unknown))}")
        if data.sizes["word"] != len(players):
            raise ValueError(f"{data.sizes['word']} maps for {len(players)} players")
        check_numbers("maps", data.values)
        check_image(image, video=video)
        self.is_video = video
        if merge not in get_args(Merge):
            raise ValueError(f"merge must be one of {', '.join(get_args(Merge))}, not {merge!r}")
        labels: dict[str, Any] = {"word": [p.text for p in players]}
        if video:
            labels["frame"] = list(range(data.sizes["frame"]))
        self.data = data.astype(np.float32).assign_coords(labels)
        self.players = tuple(players)
        self.tokens = tokens
        self.image = image
        self.merge: Merge = merge
        self.signed = signed
        self.provenance = provenance
        self._words = PromptWords.of(tokens)

    @property
    def prompt(self) -> str:
        """The prompt."""
        return self.tokens.prompt

    @property
    def words(self) -> tuple[Word, ...]:
        """The words that have a map of their own, without the special positions."""
        return tuple(p for p in self.players if p.is_text or not p.in_prompt)

    @property
    def outside(self) -> tuple[Word, ...]:
        """The words with a map of their own that aren't in the prompt."""
        return tuple(p for p in self.players if not p.in_prompt)

    def __len__(self) -> int:
        return len(self.players)

    def __iter__(self) -> Iterator[MapKey]:
        return iter(self._keys)

    def __getitem__(self, key: MapKey) -> WordMap:
        return self.at(key if isinstance(key, Word) else self._find(key))

    def __contains__(self, key: object) -> bool:
        try:
            self[key]  # type: ignore[index]
        except (KeyError, TypeError, ValueError):
            return False
        return True

    # A mapping's equality would compare the maps one by one.
    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        return np.array(self.data.values, dtype=dtype, copy=copy)

    def _ipython_key_completions_(self) -> list[MapKey]:
        return [key for key in self if not isinstance(key, Word)]

    @cached_property
    def _keys(self) -> tuple[MapKey, ...]:
        return tuple(map(self._key_of, self.players))

    def _key_of(self, player: Word) -> MapKey:
        """The shortest key of a player: its text, with its occurrence if need be, or itself."""
        for key in (player.text, (player.text, player.occurrence)):
            try:
                if self._find(key) == player:
                    return key
            except KeyError:
                continue
        return player

    def __repr__(self) -> str:
        grid = "x".join(str(self.data.sizes[d]) for d in self.data.dims[1:])
        return (
            f"AttributionMaps({self.provenance.method} of {self.prompt!r}, "
            f"{len(self.players)} maps of {grid})"
        )

    def _find(self, key: WordKey) -> Word:
        text = key[0] if isinstance(key, tuple) and key[1:] == (0,) else key
        if isinstance(text, str):
            for word in self.outside:
                if word.matches(text):
                    return word
        try:
            return self._words.find(key)
        except KeyError as error:
            if not self.outside:
                raise
            others = ", ".join(word.text for word in self.outside)
            raise KeyError(f"{error.args[0]}; of words outside it there are {others}") from None

    def at(self, word: Word) -> WordMap:
        """The map of a word, merged from the players that make it up, averaged over kept axes.

        Raises KeyError when the players don't cut at the word's edges.
        """
        if word.in_prompt:
            wanted = set(word.tokens)
            own = [i for i, p in enumerate(self.players) if p.in_prompt]
            parts = [i for i in own if set(self.players[i].tokens) <= wanted]
            found = {t for i in parts for t in self.players[i].tokens} == wanted
        else:
            parts = [i for i, p in enumerate(self.players) if p == word]
            found = bool(parts)
        if not found:
            there = ", ".join(p.text for p in self.players)
            raise KeyError(f"{word.text!r} has no map of its own here; there are {there}")
        stack = self.data.values[parts].astype(np.float64)
        extra = tuple(range(1, 1 + len(self.kept_axes)))
        if extra:
            stack = stack.mean(axis=extra)
        if self.merge == "mean":
            counts = np.array([len(self.players[i].tokens) or 1 for i in parts], float)
            merged = np.tensordot(counts / counts.sum(), stack, axes=1)
        elif self.merge == "sum":
            merged = stack.sum(axis=0)
        else:
            merged = root_sum_square(stack, self.provenance.probes)
        return WordMap(word, merged.astype(np.float32), self.signed, self.image)

    @property
    def shares(self) -> dict[MapKey, float]:
        """Return each player's share of the whole, by the player's key; they add up to 1.

        Of attention the whole is what all tokens together get, over the image and whatever axes
        were kept: how much goes to ``<pad>``, ``<template>`` and the like, and what is left for
        words. Words from outside the prompt are no part of it.

        Raises ValueError for signed maps, which have no whole, and where it is zero.
        """
        if self.signed:
            raise ValueError(f"{self.provenance.method} gives signed maps: they have no shares")
        sums = self.data.values.astype(np.float64).reshape(len(self.players), -1).sum(axis=1)
        if self.merge == "mean":
            sums *= [len(player.tokens) for player in self.players]
        inside = [player.in_prompt for player in self.players]
        whole = float(sums[inside].sum())
        if not whole > 0:
            raise ValueError("the maps are zero everywhere: they have no shares")
        return {
            key: float(own / whole)
            for key, own, there in zip(self, sums, inside, strict=True)
            if there
        }

    def describe(self) -> str:
        """The method, its settings and cost, and each player's share where maps have shares, as
        text."""
        made = self.provenance
        settings = ", ".join(f"{name}={value!r}" for name, value in made.settings.items())
        lines = [
            f"{made.method} of {self.prompt!r}",
            f"settings: {settings or 'none'}",
            f"cost: {made.forward_equivalents} forward-equivalents, {made.seconds:.2f} s",
        ]
        if not self.signed and self.data.values.any():
            lines.append("share of the whole:")
            lines += [
                f"  {share:6.1%}  {player.text} ({_counted(len(player.tokens))})"
                for share, player in zip(
                    self.shares.values(), (p for p in self.players if p.in_prompt), strict=True
                )
            ]
        return "\n".join(lines)

    def select(self, **labels: Any) -> AttributionMaps:
        """The maps at one ``step=``, ``layer=`` or ``head=``, where those were kept, or at one
        ``frame=`` of a video's latents, with the first image decoded from it.

        Raises KeyError for an axis or a label that isn't there.
        """
        try:
            data = self.data.sel(**labels)
            if "frame" in labels and not isinstance(labels["frame"], (int, np.integer)):
                raise ValueError("one frame at a time")
        except (KeyError, ValueError) as error:
            axes = {str(d): self.data.coords[d].values.tolist() for d in self.data.dims[1:-2]}
            raise KeyError(f"can't select {labels}; kept axes are {axes}") from error
        return AttributionMaps(
            data.drop_vars(list(labels)),
            self.players,
            self.tokens,
            self.frame_images[labels["frame"]] if "frame" in labels else self.image,
            merge=self.merge,
            signed=self.signed,
            provenance=self.provenance,
        )

    @property
    def kept_axes(self) -> tuple[str, ...]:
        """The axes among ``"step"``, ``"layer"``, ``"head"`` that were kept apart."""
        return tuple(str(axis) for axis in self.data.dims[1:-2] if axis != "frame")

    @property
    def frame_images(self) -> npt.NDArray[np.uint8]:
        """The first image decoded from each latent frame of a video.

        Raises ValueError for maps of a single image.
        """
        if not self.is_video:
            raise ValueError("these maps are of a single image, and have no frames")
        n_latent = self.data.sizes["frame"]
        behind = frames_behind(n_latent, len(self.image))
        return self.image[[behind.index(frame) for frame in range(n_latent)]]

    def to_html(self, path: str | Path) -> Path:
        """Write a page to look at all maps with, and return its path.

        The page needs no network: pointing at a word shows its map, pointing at the image ranks the
        words at a pixel. Several methods side by side: ``wordlight.comparisons.view``.
        """
        return self._viewer().to_html(path)

    def plot(self, words: Sequence[MapKey] | None = None, *, opacity: float = 0.7) -> PaperFigure:
        """Draw the image and a map of each word as a figure; ``savefig("x.pdf")`` embeds its fonts.

        ``words`` are what to show, every word of the prompt where None. Several maps in one figure:
        ``wordlight.attribution.plot_grid``. Raises KeyError for a word without a map.
        """
        from wordlight.attribution.plotting import plot

        return plot(self, words, opacity=opacity)

    def _viewer(self) -> Viewer:
        from wordlight.attribution.viewer import Panel, Viewer

        return Viewer([Panel.of(self)])

    def _repr_html_(self) -> str:
        return self._viewer()._repr_html_()

    def save(self, path: str | Path, label: Mapping[str, str] | None = None) -> None:
        """Write to one safetensors file, by atomic rename.

        ``label`` says what it is kept for, and has to be said again to read it for that.
        """
        extra = [str(d) for d in self.data.dims[1:-2]]
        facts: dict[str, Any] = {
            "tokens": self.tokens.to_json(),
            "players": [
                # A group's parts come last; other words have none, and no place for them.
                [p.text, p.start, p.stop, list(p.tokens), p.occurrence, *filter(None, [p.parts])]
                for p in self.players
            ],
            "axes": {d: self.data.coords[d].values.tolist() for d in extra},
            "merge": self.merge,
            "signed": self.signed,
            "provenance": vars(self.provenance),
        }
        arrays: dict[str, npt.NDArray[Any]] = {"maps": self.data.values, "image": self.image}
        write_arrays(Path(path), _KIND, _VERSION, arrays, facts, label)

    @classmethod
    def load(cls, path: str | Path, label: Mapping[str, str] | None = None) -> AttributionMaps:
        """Read what ``save`` wrote.

        Raises FileNotFoundError, and FileFormatError on a damaged file, another version, or one
        that was kept for something else than ``label`` says.
        """
        arrays, facts = read_arrays(Path(path), _KIND, _VERSION, label)
        try:
            axes = facts["axes"]
            data = xr.DataArray(arrays["maps"], dims=("word", *axes, "y", "x"), coords=axes)
            players = [
                Word(t, a, b, tuple(tokens), n, *(tuple((c, d) for c, d in p) for p in parts))
                for t, a, b, tokens, n, *parts in facts["players"]
            ]
            return cls(
                data,
                players,
                Tokens.from_json(facts["tokens"]),
                arrays["image"],
                merge=facts["merge"],
                signed=bool(facts["signed"]),
                provenance=Provenance(**facts["provenance"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"{path} holds no valid maps: {error}") from None
