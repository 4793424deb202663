"""The attention layers of a UNet, and the grids that they work on."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch.utils.hooks import RemovableHandle

from wordlight.backends.torch.denoisers import Kind
from wordlight.backends.torch.module_tree import named_parts, parts_of


def attention_layers(unet: torch.nn.Module, kind: Kind = "cross") -> dict[str, torch.nn.Module]:
    """The attention modules of one kind in a UNet's transformers, by name, in order."""
    return {
        f"{outer}.{inner}": module
        for outer, transformer in named_parts(unet)
        if isinstance(transformer, Transformer2DModel)
        for inner, module in named_parts(transformer)
        if isinstance(module, Attention) and module.is_cross_attention == (kind == "cross")
    }


def layers_named(
    cross: str, own: str | None = ""
) -> Callable[[torch.nn.Module, Kind], dict[str, torch.nn.Module]]:
    """The modules whose whole names match a pattern, in order: ``cross`` for attention to the
    text, ``own`` for that of the picture to itself; the same where it is empty, none for None."""

    def layers(module: torch.nn.Module, kind: Kind = "cross") -> dict[str, torch.nn.Module]:
        pattern = cross if kind == "cross" or own == "" else own
        if pattern is None:
            return {}
        return {
            name: inner
            for name, inner in named_parts(module)
            if re.fullmatch(pattern, name) and hasattr(inner, "processor")
        }

    return layers


def n_heads(module: torch.nn.Module) -> int:
    """Return the number of an attention module's heads; Kandinsky's has another name for it."""
    heads = getattr(module, "heads", None)
    return int(module.num_heads if heads is None else heads)  # type: ignore[arg-type]


def split_heads(projected: torch.Tensor, attention: Attention) -> torch.Tensor:
    """``(rows, length, channels)`` as ``(rows, heads, length, channels of a head)``."""
    apart: torch.Tensor = projected.unflatten(2, (attention.heads, -1)).transpose(1, 2)
    return apart


class FeatureGrid:
    """Notes height and width of the feature map that is being attended over.

    They come from the real feature map, never from a root of the number of places. Only passes of
    the thread ``thread`` are noted; ``now`` is the present one's.
    """

    def __init__(self) -> None:
        self.thread: int | None = None
        self.now: tuple[int, ...] | None = None
        self._handles: list[RemovableHandle] = []

    def listen(self, unet: torch.nn.Module) -> None:
        """Put a hook before each transformer of a denoiser."""
        for module in parts_of(unet):
            if isinstance(module, Transformer2DModel):
                self._handles.append(module.register_forward_pre_hook(self._note, with_kwargs=True))

    def remove(self) -> None:
        """Take the hooks away."""
        self.thread = None
        while self._handles:
            self._handles.pop().remove()

    def of(self, name: str, places: int) -> tuple[int, ...]:
        """The grid of a layer; raises ValueError where its places are not one a feature."""
        if self.now is None:
            raise ValueError(f"the feature map that {name} attends over can't be told")
        height, width = self.now
        if places != height * width:
            raise ValueError(
                f"{name} attends from {places} places over features of {height} x {width}: tokens "
                "are merged or added on the way, so the places can't be told"
            )
        return self.now

    def _note(
        self,
        _module: torch.nn.Module,
        args: tuple[object, ...],
        kwargs: Mapping[str, object] | None = None,
    ) -> None:
        # Without keywords where the hook is taken away by another thread just now.
        if self.thread != threading.get_ident() or kwargs is None:
            return
        features = args[0] if args else kwargs.get("hidden_states")
        if isinstance(features, torch.Tensor) and features.ndim == 4:
            self.now = (int(features.shape[2]), int(features.shape[3]))
        else:
            self.now = None
