"""Takes the wanted attention out of the passes of a denoiser, without touching what it computes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from wordlight.backends.attention import AttentionQuery, OtherKeys, shares_of_others
from wordlight.backends.measures import AttentionParts
from wordlight.backends.torch.attention_calls import (
    AttentionCall,
    AttentionCalls,
    wide_product,
)
from wordlight.backends.torch.attention_layers import FeatureGrid, n_heads, split_heads
from wordlight.backends.torch.call_arguments import CallArguments
from wordlight.backends.torch.denoisers import Layout
from wordlight.backends.torch.denominators import with_denominators
from wordlight.backends.torch.model import Model
from wordlight.backends.torch.module_tree import parts_of

#: Takes the names of layers of one grid, the grid, and their probabilities
#: ``(layers, rows, heads, places, keys)``.
Receive = Callable[[Sequence[str], tuple[int, ...], torch.Tensor], None]
#: The numbers of probabilities that are computed together at most. A GPU waits for each
#: operation's launch; a processor's cache holds no more than this.
_TOGETHER, _TOGETHER_ON_CPU = 2**24, 2**18


@dataclass
class _Pass:
    """One pass of the denoiser that is listened to.

    Attributes:
        layout: the positions of text and picture.
        rows: the rows that are wanted.
        count: the number of rows.
        wanted: the layers of the denoiser that passes, as far as they are wanted.
        taken: those that were seen.
        own: the parts of the probabilities that layers computed themselves, by layer.
        grids: the feature maps that those layers work on.
        waiting: queries and keys of layers that are computed together, by what they share.
    """

    layout: Layout
    rows: slice
    count: int
    wanted: list[str]
    taken: set[str]
    own: dict[str, list[torch.Tensor]]
    grids: dict[str, tuple[int, ...] | None]
    waiting: dict[Any, list[tuple[str, torch.Tensor, torch.Tensor]]]


class AttentionTap:
    """Shows the probabilities of the wanted layers, as they are used.

    ``install`` and ``remove`` put hooks in place and take them away; as a context manager it does
    both. Between ``begin`` and ``end`` one pass of the denoiser is listened to, in the thread that
    called ``begin``.

    Args:
        model: the denoiser.
        query: the layers, and their kind.
        receive: called with the layers' probabilities.
        others: words whose attention is wanted instead of that of the prompt's tokens; see
            ``shares_of_others``.
        on_error: told of what goes wrong in listening, which is raised in the denoiser's pass where
            it is None.

    Attributes:
        wanted: the modules that are listened to, by name.

    Raises:
        ValueError: a query that the model has no layers for (when made).
    """

    def __init__(
        self,
        model: Model,
        query: AttentionQuery,
        receive: Receive,
        others: OtherKeys | None = None,
        on_error: Callable[[Exception], None] | None = None,
    ) -> None:
        self._model, self._query, self._receive, self._others = model, query, receive, others
        query.check(model.layers(query.kind))
        modules = model.attending(query.kind)
        self.wanted = {n: m for n, m in modules.items() if query.wants_layer(n)}
        self._calls = AttentionCalls(self.wanted, self._see, on_error)
        self._grids = FeatureGrid()
        self._pass: _Pass | None = None
        self._other_keys: dict[str, OtherKeys] = {}
        #: The names of a denoiser's own among the wanted modules, by its identity.
        self._wanted_of: dict[int, list[str]] = {}

    def __enter__(self) -> AttentionTap:
        try:
            self.install()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def install(self) -> None:
        """Put the hooks in place."""
        if self._others is not None:
            self._other_keys = {
                name: _other_keys(name, module, self._others)
                for name, module in self.wanted.items()
            }
        if self._model.family.feature_maps:
            self._grids.listen(self._model.module)
        self._calls.install()

    def remove(self) -> None:
        """Take every hook away."""
        self._calls.remove()
        self._grids.remove()
        self._pass = None

    def begin(self, told: CallArguments, count: int, rows: slice, module: torch.nn.Module) -> None:
        """Listen to the pass of a denoiser that is told this; of ``count`` rows those ``rows`` are
        wanted."""
        layout = self._model.layout(told)
        if id(module) not in self._wanted_of:
            own = set(map(id, parts_of(module)))
            self._wanted_of[id(module)] = [n for n, m in self.wanted.items() if id(m) in own]
        self._pass = _Pass(layout, rows, count, self._wanted_of[id(module)], set(), {}, {}, {})
        self._grids.thread = self._calls.thread = threading.get_ident()

    def end(self) -> None:
        """Listen no longer, and hand on what is left.

        Raises ValueError where a wanted layer's attention wasn't seen.
        """
        ended, self._pass = self._pass, None
        self._grids.thread = self._calls.thread = None
        if ended is None:
            return
        with torch.no_grad():
            for alike in list(ended.waiting):
                self._compute(ended, alike)
        for name, parts in ended.own.items():
            self._take_own(ended, name, parts)
        if self._model.family.joint and ended.taken:
            # Some layers attend within text or picture alone.
            return
        unseen = [name for name in ended.wanted if name not in ended.taken]
        if unseen:
            kind = type(getattr(self.wanted[unseen[0]], "processor", None)).__name__
            raise ValueError(
                f"the attention of {unseen[0]} can't be seen: {kind} computes it neither by "
                f"PyTorch nor by a kernel of diffusers' own, or to other keys than the text's "
                f"{ended.layout.length}"
            )

    @torch.no_grad()
    def _see(self, call: AttentionCall) -> torch.Tensor | None:
        now = self._pass
        if now is None or not self._is_of_kind(now, call):
            return None
        if call.by_own_processor:
            _check_whole(call, now)
        if call.name in now.taken:
            return None
        if call.probs is not None:
            now.own.setdefault(call.name, []).append(call.probs.detach())
            now.grids[call.name] = self._grids.now
            return None
        now.taken.add(call.name)
        if self._model.family.joint:
            return self._take_columns(now, call)
        self._take(now, call)
        return None

    def _is_of_kind(self, now: _Pass, call: AttentionCall) -> bool:
        # Image prompts (IP-Adapter) are attended to beside the text, by calls of their own.
        within = self._query.kind == "self" and not self._model.family.joint
        return within or call.keys == now.layout.length

    def _take(self, now: _Pass, call: AttentionCall) -> None:
        assert call.query is not None
        grid = self._grid(now, call.name, int(call.query.shape[2]))
        if not self._query.wants_grid(grid, now.layout.latent_grid):
            return
        others = self._other_keys.get(call.name)
        together = self._query.measure == "probabilities" and "layer" not in self._query.keep
        if others is None and together and call.is_plain:
            self._wait(now, call, grid)
            return
        own = call.scores(now.rows)
        if others is None:
            self._receive([call.name], grid, self._measured(now, call, own)[None])
            return
        asked = call.products(now.rows, others.embeddings)
        raw = self._query.measure == "scores"
        shown = asked if raw else shares_of_others(own, asked, others)
        self._receive([call.name], grid, shown[None])

    def _wait(self, now: _Pass, call: AttentionCall, grid: tuple[int, ...]) -> None:
        """Put a layer aside until those of its grid are computed together."""
        query, key = (part.detach()[now.rows] for part in (call.query, call.key))  # type: ignore[union-attr]
        alike = (grid, query.shape, key.shape, query.dtype, key.dtype, query.device, call.scale)
        waiting = now.waiting.setdefault(alike, [])
        waiting.append((call.name, query, key))
        most = _TOGETHER_ON_CPU if query.device.type == "cpu" else _TOGETHER
        if (len(waiting) + 1) * query[..., 0].numel() * key.shape[2] > most:
            self._compute(now, alike)

    def _compute(self, now: _Pass, alike: Any) -> None:
        """Hand on the probabilities of layers that waited."""
        names, queries, keys = zip(*now.waiting.pop(alike), strict=True)
        grid, scale = alike[0], alike[-1]
        query, key = (
            parts[0][None] if len(parts) == 1 else torch.stack(parts) for parts in (queries, keys)
        )
        products = wide_product(query, key.transpose(-1, -2))
        products *= query.shape[-1] ** -0.5 if scale is None else scale
        self._receive(names, grid, products.softmax(-1))

    def _measured(self, now: _Pass, call: AttentionCall, scores: torch.Tensor) -> torch.Tensor:
        measure = self._query.measure
        if measure == "probabilities":
            return scores.softmax(-1)
        assert call.value is not None
        values = call.value[now.rows].to(scores.dtype)
        heads = int(scores.shape[1])
        if values.shape[1] != heads:
            values = values.repeat_interleave(heads // values.shape[1], 1)
        projection = None
        if measure == "weighted-heads":
            projection = _projection(call, heads).to(scores.dtype)
        measured: torch.Tensor = AttentionParts(scores, values, projection).measured(
            measure, self._query.kind
        )
        return measured

    def _take_columns(self, now: _Pass, call: AttentionCall) -> torch.Tensor | None:
        """The text's columns, or the picture's, of a softmax over both; the output too, where the
        kernel gave it with the softmax's denominators."""
        layout = now.layout
        if not self._query.wants_grid(layout.grid, layout.latent_grid):
            return None
        if self._query.measure != "probabilities":
            self._receive([call.name], layout.grid, self._measured_columns(now, call)[None])
            return None
        output, lse = with_denominators(call)
        parts = []
        for row in range(now.count)[now.rows]:
            _, picture = layout.of_row(row)
            keys = layout.keys_of_row(row, self._query.kind)
            columns = call.columns(row, picture, keys, None if lse is None else lse[row])
            parts.append(layout.by_position(columns) if self._query.kind == "cross" else columns)
        self._receive([call.name], layout.grid, torch.stack(parts)[None])
        return output

    def _measured_columns(self, now: _Pass, call: AttentionCall) -> torch.Tensor:
        """Another measure of the text's columns, or the picture's, of a softmax over both."""
        kind, layout = self._query.kind, now.layout
        rows = []
        for row in range(now.count)[now.rows]:
            alone = call.row(row)
            assert alone.query is not None
            assert alone.key is not None
            wide = torch.promote_types(alone.query.dtype, torch.float32)
            _, picture = layout.of_row(row)
            keys = layout.keys_of_row(row, kind)
            products = alone.products(slice(0, 1), alone.key[:, :, keys])
            scores = alone.masked(products, slice(None), range(call.keys)[keys])[:, :, picture]
            projection = None
            if self._query.measure == "weighted-heads":
                projection = _projection(call, int(scores.shape[1])).to(wide)
            parts = AttentionParts(
                scores,
                None,
                projection,
                shares=alone.columns(0, picture, keys, None)[None],
                outputs=alone.attended()[:, :, picture].to(wide),
            )
            measured = parts.measured(self._query.measure, kind)[0]
            rows.append(layout.by_position(measured) if kind == "cross" else measured)
        return torch.stack(rows)

    def _grid(self, now: _Pass, name: str, places: int) -> tuple[int, ...]:
        if self._model.family.feature_maps:
            return self._grids.of(name, places)
        return now.layout.grid

    def _take_own(self, now: _Pass, name: str, parts: list[torch.Tensor]) -> None:
        """Probabilities that a layer computed itself, perhaps in slices of rows and heads."""
        heads = n_heads(self.wanted[name])
        flat = torch.cat([part.flatten(0, -3) for part in parts])
        rows = now.count * heads
        if len(flat) < rows or name in now.taken:
            return
        if len(flat) > rows:
            raise ValueError(_several(name, self.wanted[name]))
        now.taken.add(name)
        probs = flat[:rows].unflatten(0, (now.count, heads))
        if self._model.family.joint:
            row = range(now.count)[now.rows][0]
            _, picture = now.layout.of_row(row)
            probs = probs[:, :, picture, now.layout.keys_of_row(row, self._query.kind)]
            probs = now.layout.by_position(probs) if self._query.kind == "cross" else probs
        self._grids.now = now.grids[name]
        grid = self._grid(now, name, int(probs.shape[2]))
        if not self._query.wants_grid(grid, now.layout.latent_grid):
            return
        if self._query.measure != "probabilities":
            raise ValueError(
                f"{name} computes its probabilities itself: its {self._query.measure} can't be told"
            )
        if self._other_keys:
            raise ValueError(
                f"{name} computes its probabilities itself: what words beside the prompt would get "
                "can't be told"
            )
        wide = torch.promote_types(probs.dtype, torch.float32)
        self._receive([name], grid, probs[now.rows].to(wide)[None])


def _check_whole(call: AttentionCall, now: _Pass) -> None:
    """Raises ValueError for what only processors of users do: attend several times to the same
    keys, so that nobody knows what becomes of each, or in parts."""
    computed = call.probs is not None
    if call.name in now.taken or (not computed and call.name in now.own):
        raise ValueError(_several(call.name, call.module))
    if call.query is not None and (call.query.ndim != 4 or call.query.shape[0] != now.count):
        kind = type(call.module.processor).__name__
        raise ValueError(
            f"{kind} calls PyTorch's attention in {call.name} with queries of "
            f"{tuple(call.query.shape)}, and only ({now.count} rows, heads, places, channels) "
            "can be told apart"
        )


def _several(name: str, module: torch.nn.Module) -> str:
    kind = type(getattr(module, "processor", None)).__name__
    return (
        f"{kind} attends several times to the same keys in {name}: which of it makes the picture "
        "can't be told"
    )


@torch.no_grad()
def _other_keys(name: str, attention: Any, others: OtherKeys) -> OtherKeys:
    """A layer's keys of other words, by the layer's own module, with the LoRA in it."""
    if attention.norm_cross is not None:
        raise ValueError(f"{name} normalises the text it attends to: other words can't be added")
    channels, embeddings = attention.cross_attention_dim, others.embeddings
    if embeddings.shape[1] != channels:
        raise ValueError(
            f"keys must be (others, {channels} channels), not {tuple(embeddings.shape)}"
        )
    made: Any = [
        torch.as_tensor(part, device=embeddings.device)
        for part in (others.displaced, others.together)
    ]
    keys = split_heads(attention.to_k(embeddings[None]), attention)
    if attention.norm_k is not None:
        keys = attention.norm_k(keys)
    return OtherKeys(keys, *made)


@torch.no_grad()
def _projection(call: AttentionCall, heads: int) -> torch.Tensor:
    """Return a layer's output projection by heads, ``(heads, width, channels)``, the LoRA in it."""
    assert call.value is not None
    linear = getattr(call.module, "to_out", None)
    if isinstance(linear, torch.nn.ModuleList):
        linear = linear[0]
    if not isinstance(linear, torch.nn.Module):
        raise ValueError(f"{call.name} has no to_out: how its heads are joined can't be told")
    inner = heads * int(call.value.shape[-1])
    unit = torch.eye(inner, dtype=call.value.dtype, device=call.value.device)
    matrix: torch.Tensor = linear(unit) - linear(torch.zeros_like(unit[:1]))
    by_head: torch.Tensor = matrix.unflatten(0, (heads, -1))
    return by_head
