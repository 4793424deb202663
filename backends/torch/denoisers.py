"""Families of denoisers: the few facts that tracing and replaying need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from wordlight.backends.backend import Conditioning
from wordlight.backends.tokens import Tokens
from wordlight.backends.torch.call_arguments import CallArguments
from wordlight.backends.torch.tokenizing import tokenize

Kind = Literal["cross", "self"]


@dataclass(frozen=True)
class Layout:
    """The places of text and picture in one pass of a denoiser.

    Attributes:
        grid: height and width of the picture's places, of a video behind the number of frames; of
            the latents, where layers have grids of their own.
        text: the positions of the text among an attention's keys, the same in all rows, or row by
            row.
        picture: those of the picture among its queries, and in joint attention its keys, likewise.
        length: the number of an attention's keys; other attention is of another kind.
        positions: the number of positions of the text's embeddings; the last ones may be among no
            keys, and get no attention.
        latent_grid: height and width of the latents.
        picture_keys: the positions of the picture among the keys, where they are others than among
            the queries.
        again: the number of the text's last positions that stand among the keys once more, right
            behind.
    """

    grid: tuple[int, ...]
    text: slice | tuple[slice, ...]
    picture: slice | tuple[slice, ...]
    length: int
    positions: int
    latent_grid: tuple[int, ...]
    picture_keys: slice | None = None
    again: int = 0

    def keys_of_row(self, row: int, kind: Kind) -> slice:
        """The keys of one row that attention of a kind is looked at to."""
        text, picture = self.of_row(row)
        return text if kind == "cross" else self.picture_keys or picture

    def by_position(self, columns: torch.Tensor) -> torch.Tensor:
        """Attention to the text's keys ``(..., keys)`` as that to its positions: what it gets in
        two places is added, and what is among no keys gets none."""
        if self.again:
            columns, more = columns.split((columns.shape[-1] - self.again, self.again), -1)
            columns = columns + torch.nn.functional.pad(more, (columns.shape[-1] - self.again, 0))
        return torch.nn.functional.pad(columns, (0, self.positions - columns.shape[-1]))

    def of_row(self, row: int) -> tuple[slice, slice]:
        """Text and picture of one row of the batch."""
        text = self.text if isinstance(self.text, slice) else self.text[row]
        picture = self.picture if isinstance(self.picture, slice) else self.picture[row]
        return text, picture


@dataclass(frozen=True, kw_only=True)
class Denoiser:
    """A family of denoisers.

    A family is an entry of ``FAMILIES``. What a pipeline passes to the denoiser is recorded and
    replayed with other text, everything else as it was; so an entry says where latents, time and
    text go in, and how they are laid out, and nothing of the rest. ``told`` is what a denoiser was
    told in one call: its arguments by name.

    Attributes:
        name: as users read it.
        classes: names of the denoisers' classes.
        part: the attribute of a pipeline that holds one.
        latents, time, text: the arguments that latents, timestep and text embeddings go in by.
        more_text: further arguments that text embeddings go in by.
        words: the argument of the pipeline's call that these are made of, if it is given; else they
            are made of ``prompt``.
        layout: the positions of text and picture, of module and ``told``.
        unpack: the picture's latents ``(rows, channels, height, width)``, of a video with an axis
            for frames before the height, of module and ``told``.
        pack: the argument that such latents go in by, of module, latents and ``told``.
        besides: the rest to record of the latents' argument beside the picture's latents
            (pictures to refer to), of module and ``told``.
        shared: arguments whose arrays of one or two axes are of all rows, such as places' numbers,
            though a batch may happen to have as many rows as they have entries.
        read: the prediction ``(rows, channels, height, width)`` as the pipeline takes it, of
            module, the denoiser's output and ``told``.
        told_time: the argument that a timestep goes in by, of timestep and latents.
        read_text: the embeddings ``(rows, positions, channels)``, or a list of such rows, of
            module and ``told``; the argument ``text`` itself where None.
        told_text: the arguments that such embeddings go in by, of module and embeddings; the one
            argument ``text`` where None.
        words_are_enough: names of the pipelines' classes that take a picture, too, and draw as well
            without one.
        ignored: arguments that are neither recorded nor told in a replay.
        guidance: the argument of the pipeline's call that says the strength of guidance; where it
            is ``true_cfg_scale``, there is none without a negative prompt.
        refused: why a call of the pipeline can't be explained, of its arguments; None where it can.
        prompt_form: a prompt, at ``{prompt}``, as it must be written for its words to be read.
        one_image_a_call: whether its pipelines fail at guided batches of several images, or draw
            them by one seed.
        packed: whether squares of 2 x 2 latents are packed into channels.
        layers: the modules that attend, by name, in the order of their calls.
        joint: whether one softmax runs over text and picture.
        feature_maps: whether a layer's grid is that of its own feature map.
        two_calls: whether guidance calls the denoiser twice a step, first with the prompt.
        conditional_first: names of the pipelines' classes that put the conditional rows of a
            guided batch first; others put them last.
        sigma: the noise level of a flow-matching model, of module and the timestep that it is
            told; None for models of the diffusion kind, whose scheduler knows.
        level_is_recorded: whether the noise level of a step is its scheduler's alone, and the
            timestep doesn't tell it: it is recorded at each step, as ``NOISE_LEVEL``.
        tokens: the tokens of a prompt, one an embedding: of pipeline, prompt, ``allow_cut``.
        encode: the conditioning that the pipeline makes of prompts: of pipeline, prompts, options
            that a pipeline call may have (``clip_skip``).
        encoder: the attribute of a pipeline that holds the text encoder whose last states are the
            embeddings, of tokens without a mask; None where they are made otherwise.
        added_names: the further conditioning that a text encoder makes for a pipeline's denoiser.
        as_given: arguments without which a pipeline's call would write the prompt anew, of the
            pipeline.
        empty_is_negative: whether a pipeline that is given no negative prompt pushes away from the
            empty prompt.
        probed: whether it is of no table, and was found by a probe.
        second: the attribute of a pipeline that holds a denoiser for the steps of little noise and
            the timestep below which it takes over; None where there is none.
        lacks: primitives that models of this family can't give, with the reason.
    """

    name: str
    classes: tuple[str, ...]
    part: str = "transformer"
    latents: str = "hidden_states"
    time: str = "timestep"
    text: str = "encoder_hidden_states"
    more_text: tuple[str, ...] = ()
    words: str = "prompt"
    layout: Callable[[Any, CallArguments], Layout]
    unpack: Callable[[Any, CallArguments], torch.Tensor]
    pack: Callable[[Any, torch.Tensor, CallArguments], Any]
    besides: Callable[[Any, CallArguments], CallArguments] = lambda _module, _told: {}
    shared: frozenset[str] = frozenset()
    read: Callable[[Any, Any, CallArguments], torch.Tensor]
    told_time: Callable[[float, torch.Tensor], Any]
    read_text: Callable[[Any, CallArguments], Any] | None = None
    told_text: Callable[[Any, torch.Tensor], CallArguments] | None = None
    words_are_enough: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()
    guidance: str = "guidance_scale"
    refused: Callable[[CallArguments], str | None] = lambda _arguments: None
    prompt_form: str = "{prompt}"
    one_image_a_call: bool = False
    packed: bool = False
    layers: Callable[[torch.nn.Module, Kind], dict[str, torch.nn.Module]]
    joint: bool = True
    feature_maps: bool = False
    two_calls: bool = False
    conditional_first: frozenset[str] = frozenset()
    sigma: Callable[[Any, float], float] | None = None
    level_is_recorded: bool = False
    tokens: Callable[..., Tokens] = tokenize
    encode: Callable[[Any, Sequence[str], Mapping[str, Any]], Conditioning]
    encoder: str | None = None
    added_names: Callable[[Any], frozenset[str]] = lambda _pipe: frozenset()
    as_given: Callable[[Any], CallArguments] = lambda _pipe: {}
    empty_is_negative: Callable[[Any], bool] = lambda _pipe: False
    probed: bool = False
    second: Callable[[Any], tuple[str, float] | None] = lambda _pipe: None
    lacks: Mapping[str, str] = field(default_factory=dict)
