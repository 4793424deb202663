"""A denoiser that the table doesn't have: where text and picture stand, found by trying.

Its pipeline is run up to the denoiser's first call, of two prompts. The call is then made with
other text and with other latents: keys of an attention that move with the text are the text's,
those that move with the latents the picture's. What is found holds for other sizes, as long as the
order is the same; where it isn't, no attention has the foreseen number of keys, which is said.
"""

from __future__ import annotations

import inspect
import math
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from wordlight.backends.tokens import Tokens
from wordlight.backends.torch.attention_calls import AttentionCall, AttentionCalls
from wordlight.backends.torch.call_arguments import CallArguments, arguments_of
from wordlight.backends.torch.compiled import uncompiled
from wordlight.backends.torch.denoisers import Denoiser, Kind, Layout
from wordlight.backends.torch.families import as_grid, grid_told, to_tokens
from wordlight.backends.torch.first_call import encode_by_running, first_call
from wordlight.backends.torch.tokenizing import tokenize

#: The names that latents, text and time go by in diffusers' denoisers.
_LATENTS = ("hidden_states", "sample", "x")
_TEXT = ("encoder_hidden_states",)
_TIME = ("timestep", "timesteps", "t")
#: Pixels of the smallest picture that is tried.
_LEAST_SIDE = 32
_PROMPTS = ("a red circle", "two blue squares")
#: Only maps of words: how the prediction is scaled, and much else, isn't found so.
_LACKS = dict.fromkeys(
    (
        "sample invert decode encode_from randomized denoise denoise_jvp denoise_parts denoise_vjp "
        "self_attention attention_keys attention_measures attention_vjp"
    ).split(),
    "its denoiser isn't in the table of families: a probe found where it attends to the words, "
    "and nothing else",
)
_FOUND: weakref.WeakKeyDictionary[torch.nn.Module, Denoiser] = weakref.WeakKeyDictionary()
_LOCK = threading.RLock()


class ProbeError(ValueError):
    """A probe couldn't find something out of a denoiser; the message says what."""


@dataclass(frozen=True)
class _Order:
    """The layout of the keys of the attention to the text.

    Attributes:
        layers: the modules that attend to the text, in order.
        joint: whether picture and text are among the same keys.
        text_first: whether the text comes before the picture.
        before, between, after: the number of other keys.
        side: height and width of a place, in latents.
    """

    layers: tuple[str, ...]
    joint: bool
    text_first: bool
    before: int
    between: int
    after: int
    side: int

    def layout(self, told: CallArguments, latents: torch.Tensor, n_text: int) -> Layout:
        sides = int(latents.shape[-2]), int(latents.shape[-1])
        grid = (sides[0] // self.side, sides[1] // self.side)
        places = grid[0] * grid[1]
        if not self.joint:
            start = self.before
            length = start + n_text + self.after
            return Layout(
                grid, slice(start, start + n_text), slice(0, places), length, n_text, sides
            )
        first, second = (n_text, places) if self.text_first else (places, n_text)
        ends = slice(self.before, self.before + first)
        start = ends.stop + self.between
        others = slice(start, start + second)
        text, picture = (ends, others) if self.text_first else (others, ends)
        return Layout(grid, text, picture, others.stop + self.after, n_text, sides)


def probed(pipe: Any) -> Denoiser:
    """The family of a pipeline's denoiser, as a probe finds it, once a denoiser.

    Raises ProbeError, with the reason, where it finds none.
    """
    with _LOCK:
        part, module = _denoiser(pipe)
        if module not in _FOUND:
            _FOUND[module] = _probe(pipe, part, module)
        return _FOUND[module]


def _denoiser(pipe: Any) -> tuple[str, torch.nn.Module]:
    # Layers of a UNet have each a grid of their own.
    module = getattr(pipe, "transformer", None)
    if not isinstance(module, torch.nn.Module):
        raise ProbeError("it has no transformer")
    return "transformer", uncompiled(module)


def _probe(pipe: Any, part: str, module: torch.nn.Module) -> Denoiser:
    kind = type(module).__name__
    takes = inspect.signature(type(module).forward).parameters
    names = [next((n for n in known if n in takes), None) for known in (_LATENTS, _TEXT, _TIME)]
    if None in names:
        raise ProbeError(f"its denoiser is a {kind}, which takes no latents, text or timestep")
    latents_name, text_name, time_name = map(str, names)
    attending = {n: m for n, m in module.named_modules() if hasattr(m, "processor")}
    if not attending:
        raise ProbeError(f"its denoiser is a {kind}, which has no attention of diffusers'")
    first, other = (_first_told(pipe, module, prompt) for prompt in _PROMPTS)
    rows = _rows_that_differ(first[text_name], other[text_name])
    tokens = tokenize(pipe, _PROMPTS[0], length=int(first[text_name].shape[1]))
    _check_read_so(pipe, module, tokens)
    order = _order(module, attending, first, latents_name, text_name, rows[0])
    own_first = rows[0] == 0 and len(first[text_name]) > 1

    def layout(_module: Any, told: CallArguments) -> Layout:
        latents = _unpacked(told, latents_name)
        return order.layout(told, latents, int(told[text_name].shape[1]))

    def layers(_module: torch.nn.Module, _kind: Kind) -> dict[str, torch.nn.Module]:
        there = dict(_module.named_modules())
        return {name: there[name] for name in order.layers}

    return Denoiser(
        name=f"{kind}, which is in no table: found by a probe",
        classes=(kind,),
        part=part,
        latents=latents_name,
        time=time_name,
        text=text_name,
        layout=layout,
        unpack=lambda _module, told: _unpacked(told, latents_name),
        pack=lambda module, latents, told: (
            latents if first[latents_name].ndim == 4 else to_tokens(module, latents, told)
        ),
        read=lambda _module, output, _told: output,
        told_time=lambda timestep, latents: torch.full(
            (latents.shape[0],), timestep, device=latents.device
        ),
        layers=layers,
        # The columns are taken from the calls in either case.
        joint=True,
        # A call of its own for the negative prompt is known by its text.
        two_calls=True,
        conditional_first=frozenset((type(pipe).__name__,) if own_first else ()),
        encode=encode_by_running,
        lacks=_LACKS,
        probed=True,
    )


def _first_told(pipe: Any, module: torch.nn.Module, prompt: str) -> CallArguments:
    """What the pipeline tells its denoiser first, of a small picture that isn't square."""
    takes = inspect.signature(pipe.__call__).parameters
    unit = max(4 * int(getattr(pipe, "vae_scale_factor", 8)), _LEAST_SIDE)
    small = {"height": unit, "width": 2 * unit, "use_resolution_binning": False}
    if not {"height", "width"} <= set(takes):
        small = {}
    try:
        args, kwargs = first_call(pipe, [module], prompt, small)
        told = arguments_of(module, args, kwargs)
    except Exception as error:
        raise ProbeError(f"its pipeline can't be run by itself: {error}") from None
    return told


def _rows_that_differ(one: torch.Tensor, other: torch.Tensor) -> list[int]:
    """The rows of the prompt: those of the negative prompt are the same for both."""
    if one.shape != other.shape:
        return [len(one) - 1]
    rows: list[int] = (one != other).flatten(1).any(1).nonzero().flatten().tolist()
    if len(rows) != 1:
        raise ProbeError("which rows are the prompt's can't be told")
    return rows


def _check_read_so(pipe: Any, module: torch.nn.Module, tokens: Tokens) -> None:
    """Raises ProbeError unless the text encoders are given exactly these tokens."""
    seen: list[list[int]] = []

    def note(_module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        given = kwargs.get("input_ids", args[0] if args else None)
        if isinstance(given, torch.Tensor):
            seen.extend(given.tolist())

    encoders = [getattr(pipe, name) for name in pipe.components if name.startswith("text_encoder")]
    handles = [
        encoder.register_forward_pre_hook(note, with_kwargs=True)
        for encoder in encoders
        if encoder is not None
    ]
    try:
        _first_told(pipe, module, tokens.prompt)
    finally:
        for handle in handles:
            handle.remove()
    ends = [(stream.start, stream.stop) for stream in tokens.streams] or [(0, len(tokens))]
    for start, stop in ends:
        ids = list(tokens.ids[start:stop])
        n_pads = tokens.kinds[start:stop].count("pad")
        if not any(_is_row_of(row, ids, n_pads) for row in seen):
            raise ProbeError(
                "its pipeline writes the prompt otherwise for its text encoder than its tokenizer "
                "reads it, so that the words' places can't be told"
            )


def _is_row_of(row: list[int], ids: list[int], n_pads: int) -> bool:
    """Whether a text encoder's row has these ids, all of them or without padding at the end."""
    n_own = len(ids) - n_pads
    return row == ids[: len(row)] and len(row) >= n_own


def _unpacked(told: CallArguments, name: str) -> torch.Tensor:
    latents: torch.Tensor = told[name]
    if latents.ndim == 4:
        return latents
    if latents.ndim != 3:
        raise ProbeError(f"its latents have {latents.ndim} axes")
    grid = grid_told(told)
    if grid is None:
        raise ProbeError("its latents are places in a row, whose rows and columns can't be told")
    return as_grid(latents, grid)


def _order(
    module: torch.nn.Module,
    attending: Mapping[str, torch.nn.Module],
    told: CallArguments,
    latents: str,
    text: str,
    row: int,
) -> _Order:
    generator = torch.Generator().manual_seed(0)

    def moved(tensor: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(tensor.shape, generator=generator).to(tensor)
        return tensor + noise * tensor.std()

    own, by_text, by_picture = (
        _keys(module, attending, {**told, **change})
        for change in ({}, {text: moved(told[text])}, {latents: moved(told[latents])})
    )
    sides = _unpacked(told, latents).shape[-2:]
    n_latents, n_text = int(sides[0] * sides[1]), int(told[text].shape[1])
    found: list[tuple[str, int, _Order]] = []
    for (name, n_queries, keys), text_moved, picture_moved in zip(
        own, by_text, by_picture, strict=True
    ):
        of_text, of_picture = (
            _where(keys[row], changed[2][row]) for changed in (text_moved, picture_moved)
        )
        # Layers behind the first have mixed the two: only text by itself tells.
        alone = of_text - of_picture
        if alone and len(alone) <= n_text:
            length = int(keys.shape[-2])
            n_places = len(of_picture) or n_queries
            order = _order_of(alone, of_picture, length, n_text, n_latents // n_places)
            found.append((name, length, order))
    found = [one for one in found if one[2].side]
    if not found:
        raise ProbeError("no attention was seen whose keys move with the text")
    _, length, order = found[0]
    names = (
        [name for name, _, keys in own if int(keys.shape[-2]) == length]
        if order.joint
        else [name for name, _, one in found if one == order]
    )
    return replace(order, layers=tuple(dict.fromkeys(names)))


def _where(keys: torch.Tensor, changed: torch.Tensor) -> set[int]:
    """The positions of one row's keys ``(heads, positions, channels)`` that changed."""
    return set((keys != changed).any(-1).any(0).nonzero().flatten().tolist())


def _order_of(text: set[int], picture: set[int], length: int, n_text: int, area: int) -> _Order:
    """The order of one attention's keys; ``area`` is how many latents a place has."""
    start, side = min(text), math.isqrt(area)
    if not picture:
        return _Order((), False, True, start, 0, length - start - n_text, side)
    first, n_picture = min(picture), len(picture)
    if side * side != area or max(picture) - first + 1 != n_picture:
        raise ProbeError("its picture's places aren't one a square of latents")
    if start < first:
        between, after = first - start - n_text, length - first - n_picture
        return _Order((), True, True, start, between, after, side)
    between, after = start - first - n_picture, length - start - n_text
    return _Order((), True, False, first, between, after, side)


@torch.no_grad()
def _keys(
    module: torch.nn.Module, attending: Mapping[str, torch.nn.Module], told: CallArguments
) -> list[tuple[str, int, torch.Tensor]]:
    """Of every attention of one pass its module's name, its number of queries and its keys."""
    seen: list[tuple[str, int, torch.Tensor]] = []

    def see(call: AttentionCall) -> None:
        if call.key is not None and call.query is not None:
            seen.append((call.name, int(call.query.shape[-2]), call.key.detach().clone()))

    calls = AttentionCalls(attending, see)
    try:
        calls.install()
        calls.thread = threading.get_ident()
        module(**told)
    finally:
        calls.remove()
    return seen
