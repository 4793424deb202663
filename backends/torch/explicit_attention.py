"""Attention whose probabilities are part of the computation, for derivatives through it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import torch
from diffusers.models.attention_processor import (
    AttnProcessor,
    AttnProcessor2_0,
    SlicedAttnProcessor,
    XFormersAttnProcessor,
)

from wordlight.backends.attention import AttentionQuery
from wordlight.backends.torch.attention_calls import AttentionCall, AttentionCalls
from wordlight.backends.torch.attention_layers import FeatureGrid
from wordlight.backends.torch.denoisers import Layout
from wordlight.backends.torch.model import Model

#: Ways to compute softmax(QKᵀ·scale)V, and nothing else, that PyTorch's own can stand in for.
_STANDARD = (AttnProcessor, SlicedAttnProcessor, XFormersAttnProcessor)

#: Takes a layer's name, grid and probabilities ``(rows, heads, places, keys)``; gives those to use.
Look = Callable[[str, tuple[int, ...], torch.Tensor], torch.Tensor]


class StandardProcessors:
    """PyTorch's own attention in the place of processors that compute the same in another way.

    Use as a context manager: the modules' own are back after the block.
    """

    def __init__(self, modules: Mapping[str, torch.nn.Module]) -> None:
        self._modules = modules
        self._undo: list[tuple[dict[str, object], object]] = []

    def __enter__(self) -> StandardProcessors:
        for module in self._modules.values():
            own = vars(module)
            if type(own.get("processor")) in _STANDARD:
                self._undo.append((own, own["processor"]))
                own["processor"] = AttnProcessor2_0()
        return self

    def __exit__(self, *error: object) -> None:
        while self._undo:
            own, processor = self._undo.pop()
            own["processor"] = processor


class ExplicitAttention:
    """Computes the wanted layers' attention from its probabilities, and hands those on.

    ``look`` sees the probabilities of each layer, in float32 or wider, on their way to the values,
    and gives those that are used: the same, or others. For passes over latents of one size, of the
    thread that enters. ``layout`` is that of the pass, where layers have no feature maps of their
    own; attention of another length is left as it is. Use as a context manager: nothing is left
    after the block, also after an exception and when putting it in place fails half-way.
    """

    def __init__(
        self, model: Model, query: AttentionQuery, look: Look, layout: Layout | None = None
    ) -> None:
        query.check(model.layers(query.kind))
        modules = model.attending(query.kind)
        self._wanted = {n: m for n, m in modules.items() if query.wants_layer(n)}
        self._model, self._look, self._layout = model, look, layout
        self._features = FeatureGrid()
        self._calls = AttentionCalls(self._wanted, self._see)
        self._standard = StandardProcessors(self._wanted)
        self._grids: dict[str, tuple[int, ...]] = {}

    def __enter__(self) -> ExplicitAttention:
        try:
            self._standard.__enter__()
            self._features.listen(self._model.module)
            self._calls.install()
        except BaseException:
            self.remove()
            raise
        self._features.thread = self._calls.thread = threading.get_ident()
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Put everything back, in reverse order."""
        self._calls.remove()
        self._features.remove()
        self._standard.__exit__()

    def _see(self, call: AttentionCall) -> torch.Tensor | None:
        name, layout = call.name, self._layout
        if layout is not None and call.keys != layout.length:
            return None
        if call.probs is not None:
            heads = int(self._wanted[name].heads)  # type: ignore[arg-type]
            wide = torch.promote_types(call.probs.dtype, torch.float32)
            probs = call.probs.unflatten(0, (-1, heads)) if call.probs.ndim == 3 else call.probs
            used = self._look(name, self._grid(name, probs), probs.to(wide))
            return used.reshape(call.probs.shape).to(call.probs.dtype)
        return call.explicit(lambda probs: self._look(name, self._grid(name, probs), probs))

    def _grid(self, name: str, probs: torch.Tensor) -> tuple[int, ...]:
        if not self._model.family.feature_maps and self._layout is not None:
            return self._layout.grid
        # Gradient checkpointing computes a layer again on the way back, from within.
        if name not in self._grids:
            self._grids[name] = self._features.of(name, probs.shape[2])
        return self._grids[name]
