"""What a family of denoisers is: the few facts that tracing and replaying need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from wordlight.backends.backend import Conditioning
from wordlight.backends.tokens import Tokens
from wordlight.backends.torch.tokenizing import tokenize
from wordlight.backends.torch.told import Told

Kind = Literal["cross", "self"]


@dataclass(frozen=True)
class Layout:
    """Where text and picture stand in one pass of a denoiser.

    Attributes:
        grid: height and width of the picture's places; of the latents, where layers have grids of
            their own.
        text: the positions of the text among an attention's keys.
        picture: those of the picture among its queries, and in joint attention its keys.
        length: the number of an attention's keys; other attention is of another kind.
    """

    grid: tuple[int, int]
    text: slice
    picture: slice
    length: int


@dataclass(frozen=True, kw_only=True)
class Denoiser:
    """A family of denoisers.

    A family is an entry of ``FAMILIES``. What a pipeline passes to the denoiser is recorded and
    replayed with other text, everything else as it was; so an entry says where latents, time and
    text go in, and how they are laid out, and nothing of the rest.

    Attributes:
        name: as users read it.
        classes: names of the denoisers' classes.
        parts: attributes of a pipeline that may hold one.
        attention: ``"cross"``, or ``"joint"`` where one softmax runs over text and picture.
        latents, time, text: the arguments that latents, timestep and text embeddings go in by.
        shared: arguments that are the same for all rows of a batch, and have no axis for them.
        layout: where text and picture stand, from what the denoiser was told.
        unpack: the picture's latents ``(rows, channels, height, width)`` of what was told.
        pack: the argument that such latents go in by, with what was told for anything else.
        read: the prediction ``(rows, channels, height, width)``, as the pipeline takes it, of the
            denoiser's output and what it was told.
        told_time: the argument that a timestep goes in by, for some latents.
        layers: the modules that attend, by name, in the order of their calls.
        feature_maps: whether a layer's grid is that of its own feature map.
        conditional_first: names of the pipelines' classes that put the conditional rows of a
            guided batch first; others put them last.
        sigma: the noise level of a flow-matching model at a timestep that it is told; None for
            models of the diffusion kind, whose scheduler knows.
        tokens: the tokens of a prompt, one an embedding: of pipeline, prompt, ``allow_cut``.
        encode: the conditioning that the pipeline makes of prompts: of pipeline, prompts, options
            that a pipeline call may have (``clip_skip``).
        added_names: the further conditioning that a text encoder makes for a pipeline's denoiser.
        empty_is_negative: whether a pipeline that is given no negative prompt pushes away from the
            empty prompt.
        lacks: primitives that models of this family can't give, with the reason.
    """

    name: str
    classes: tuple[str, ...]
    parts: tuple[str, ...] = ("transformer",)
    attention: Literal["cross", "joint"] = "joint"
    latents: str = "hidden_states"
    time: str = "timestep"
    text: str = "encoder_hidden_states"
    shared: frozenset[str] = frozenset()
    layout: Callable[[Denoiser, Told], Layout]
    unpack: Callable[[Denoiser, Told], torch.Tensor]
    pack: Callable[[Denoiser, torch.Tensor, Told], Any]
    read: Callable[[Denoiser, Any, Told], torch.Tensor]
    told_time: Callable[[float, torch.Tensor], Any]
    layers: Callable[[torch.nn.Module, Kind], dict[str, torch.nn.Module]]
    feature_maps: bool = False
    conditional_first: frozenset[str] = frozenset()
    sigma: Callable[[float], float] | None = None
    tokens: Callable[..., Tokens] = tokenize
    encode: Callable[[Any, Sequence[str], Mapping[str, Any]], Conditioning]
    added_names: Callable[[Any], frozenset[str]] = lambda _pipe: frozenset()
    empty_is_negative: Callable[[Any], bool] = lambda _pipe: False
    lacks: Mapping[str, str] = field(default_factory=dict)
