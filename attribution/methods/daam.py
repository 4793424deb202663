"""DAAM: the cross-attention to a word, upscaled and averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import ClassVar, Literal, get_args

import xarray as xr

from wordlight.attribution.attributor import Steps, partition, said_of, trajectory_of
from wordlight.attribution.maps import AttributionMaps, Provenance
from wordlight.attribution.methods.attention_average import average_on_grid, merge_words
from wordlight.attribution.methods.by_stream import ByStream
from wordlight.attribution.methods.relative_to import (
    RelativeTo,
    check_relative_to,
    divide_attention,
)
from wordlight.attribution.options import list_of, one_of
from wordlight.attribution.question import Answer, Question, Size
from wordlight.attribution.words import PromptWords, Word, WordKey
from wordlight.backends.attention import AXES, AttentionMeans, AttentionQuery
from wordlight.backends.backend import Backend, Evaluations
from wordlight.backends.traces import Trace
from wordlight.backends.trajectory import Trajectory

#: Bicubic upscaling overshoots below zero: clamp once, after the mean, or every map by itself.
Clamp = Literal["mean", "per-map"]


class DAAM(ByStream):
    """Diffusion attentive attribution maps: mean over layers, heads and steps of the upscaled
    cross-attention probabilities to a word (Tang et al. 2022, arXiv 2210.04885).

    Every layer x head x step map has equal weight. A word of several tokens has their mean.

    Args:
        backend: the model.
        steps: the steps; all where None.
        layers, without_layers: names, or beginnings of names, of layers (``"up_blocks.1"``).
        heads: numbers of heads.
        factors: only layers whose grid is smaller than the latents' by one of these.
        keep: those of ``"step"``, ``"layer"``, ``"head"`` that stay apart as axes of the maps. A
            word's map is then the plain mean of the kept ones, each clamped by itself.
        clamp: bicubic upscaling overshoots below zero. ``"mean"`` clamps once, after the mean;
            ``"per-map"`` clamps each layer's and head's upscaled map, as the original does.
        relative_to: divides the averaged maps, pixel by pixel, by the attention to ``"start"``, to
            all ``"special"`` positions or to the prompt's ``"words"``; see ``divide_attention``.
            With ``"words"`` attention is normalised over the words, for models whose padding takes
            most of it.
        stream: where several text encoders read the prompt, the one whose tokens are a word's
            (``"t5"``); a word has the tokens of all where None.

    Raises:
        TypeError: one name or number in place of a list.
        ValueError: layers, heads or factors that the model hasn't, or a reference or a stream that
            the prompt hasn't (when asked).
    """

    name: ClassVar[str] = "daam"
    question: ClassVar[str] = "Where does the image look at the word while it is being drawn?"
    family: ClassVar[Literal["attention"]] = "attention"
    needs: ClassVar[frozenset[str]] = frozenset({"attention"})
    by_token: ClassVar[bool] = True
    takes_videos: ClassVar[bool] = True
    paper: ClassVar[str] = "Tang et al. 2022, arXiv 2210.04885"

    layers: Sequence[str] | None = None
    without_layers: Sequence[str] = ()
    heads: Sequence[int] | None = None
    factors: Sequence[int] | None = None
    keep: Sequence[str] = ()
    clamp: Clamp = "mean"
    relative_to: RelativeTo | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        kept = list_of("keep", self.keep, "['layer']")
        query = AttentionQuery(
            None if self.layers is None else list_of("layers", self.layers, "['up_blocks']"),
            list_of("without_layers", self.without_layers, "['mid_block']"),
            None if self.heads is None else list_of("heads", self.heads, "[0, 1]"),
            None if self.factors is None else list_of("factors", self.factors, "[1, 2]"),
            tuple(axis for axis in AXES if axis in kept) if set(kept) <= set(AXES) else kept,
        )
        self.layers, self.without_layers = query.layers, query.without_layers
        self.heads, self.factors, self.keep = query.heads, query.factors, query.keep
        one_of("clamp", self.clamp, get_args(Clamp))
        check_relative_to(self.relative_to)
        self._query = query

    @classmethod
    def original(cls, backend: Backend, *, steps: Steps = None) -> DAAM:
        """With the choices of the authors' released code (castorini/daam 0.2).

        The middle block and grids eight times smaller than the latents are left out, and each
        layer's and head's map is clamped. (It sums over steps where we average, and always works
        on a square grid; a map's scale aside, square images give the same.)
        """
        return cls(
            backend,
            steps=steps,
            without_layers=("mid_block",),
            factors=(1, 2, 4, 16, 32),
            clamp="per-map",
        )

    @classmethod
    def from_trace(
        cls,
        trace: Trace,
        words: Sequence[WordKey] | None = None,
        *,
        image: int | None = None,
        keep: Sequence[str] | None = None,
        clamp: Clamp = "mean",
        relative_to: RelativeTo | None = None,
        stream: str | None = None,
        words_of: str = "prompt",
    ) -> AttributionMaps:
        """Maps from the attention that was averaged while a traced pipeline ran.

        Args:
            trace: from ``wordlight.backends.trace``; its query decides on layers and heads.
            words: as in ``attribute``.
            image: the index of the pipeline's image; may be left out where there is only one.
            keep: those axes of the trace's that stay apart; all where None.
            clamp: as above; ``"per-map"`` needs a trace that kept ``layer`` and ``head``.
            relative_to, stream: as above.
            words_of: ``"negative"`` for the negative prompt's words, of a trace that looked at them
                (``trace(pipe, negative=True)``).

        Raises:
            IndexError: no such image, or several and none named.
            ValueError: a trace of self-attention or of another measure than probabilities,
                ``"per-map"`` of a trace that kept layers and
                heads together, axes that the trace didn't keep.
        """
        if not isinstance(getattr(trace, "query", None), AttentionQuery):
            raise TypeError(
                f"from_trace takes what `with wordlight.trace(pipe) as trace:` gives, not a "
                f"{type(trace).__name__}"
            )
        if trace.query.kind != "cross":
            raise ValueError(
                f"the trace is of {trace.query.kind}-attention, which goes to no word: DAAM needs "
                "AttentionQuery(kind='cross'), the default"
            )
        if trace.query.measure != "probabilities":
            raise ValueError(
                f"the trace is of {trace.query.measure}: DAAM needs the measure 'probabilities', "
                "the default"
            )
        trajectories = trace.trajectories
        if image is None and len(trajectories) > 1:
            raise IndexError(
                f"the pipeline drew {len(trajectories)} images: say which as image=0 ... "
                f"image={len(trajectories) - 1}"
            )
        if not 0 <= (image or 0) < len(trajectories):
            raise IndexError(f"no image {image}: the pipeline drew {len(trajectories)}")
        if clamp == "per-map" and not {"layer", "head"} <= set(trace.query.keep):
            raise ValueError(
                "clamp='per-map' needs a trace with AttentionQuery(keep=('layer', 'head'))"
            )
        kept = trace.query.keep if keep is None else tuple(keep)
        if not set(kept) <= set(trace.query.keep):
            raise ValueError(f"the trace kept {trace.query.keep}, not {kept}")
        trace.check_words(image or 0)
        trajectory = trajectory_of(trajectories[image or 0], words_of)
        attention = trace.attention if words_of == "prompt" else trace.negative_attention
        if stream is not None:
            trajectory = replace(trajectory, tokens=trajectory.tokens.only(stream))
        players = partition(PromptWords.of(trajectory.tokens), words)
        data = _combine(
            attention[image or 0],
            trajectory,
            players,
            kept,
            clamp=clamp,
            relative_to=check_relative_to(relative_to),
        )
        provenance = Provenance(
            method=cls.name,
            settings={
                **asdict(trace.query),
                "clamp": clamp,
                "relative_to": relative_to,
                "stream": stream,
                "steps": None,
                "traced": True,
                **said_of(trajectory),
            },
            model_id=trajectory.model_id,
            revision=trajectory.revision,
            framework=trajectory.framework,
        )
        return AttributionMaps(
            data,
            players,
            trajectory.tokens,
            trajectory.image,
            merge=cls.merge,
            signed=cls.signed,
            provenance=provenance,
        )

    def cost(self, size: Size) -> Evaluations:
        return Evaluations(forward=size.steps)

    def _attribute(self, question: Question) -> Answer:
        trajectory, query = question.trajectory, self._query
        if self.clamp == "per-map":
            # Each layer's and head's map is clamped by itself, so they must come apart.
            apart = tuple(axis for axis in AXES if axis in {*query.keep, "layer", "head"})
            query = replace(query, keep=apart)
        means = self.backend.attention(trajectory, query, question.steps)
        maps = _combine(
            means,
            trajectory,
            question.players,
            self.keep,
            clamp=self.clamp,
            relative_to=self.relative_to,
        )
        return Answer(maps)


def _combine(
    means: AttentionMeans,
    trajectory: Trajectory,
    players: Sequence[Word],
    keep: Sequence[str],
    *,
    clamp: Clamp,
    relative_to: RelativeTo | None,
) -> xr.DataArray:
    """Upscale to the latent grid, average with the number of maps as weight, clamp, divide,
    merge."""
    axes = [axis for axis in AXES if axis in keep]
    maps, labels = average_on_grid(means, trajectory.places, axes, clamp_each=clamp == "per-map")
    n_sides = len(trajectory.places)
    divided = divide_attention(maps.clip(0), trajectory.tokens, relative_to, n_sides)
    merged = merge_words(divided, players, n_sides)
    return xr.DataArray(merged, dims=("word", *axes, *trajectory.place_axes), coords=labels)
