"""The attention layers of a denoiser, the grids they work on, and what they score."""

from __future__ import annotations

from typing import Literal

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch.utils.hooks import RemovableHandle

from wordlight.backends.attention import Layer

Kind = Literal["cross", "self"]


def attention_layers(unet: torch.nn.Module, kind: Kind = "cross") -> dict[str, Attention]:
    """The attention modules of one kind in a denoiser's transformers, by name, in order."""
    return {
        f"{outer}.{inner}": module
        for outer, transformer in unet.named_modules()
        if isinstance(transformer, Transformer2DModel)
        for inner, module in transformer.named_modules()
        if isinstance(module, Attention) and module.is_cross_attention == (kind == "cross")
    }


def describe_layers(unet: torch.nn.Module, kind: Kind = "cross") -> tuple[Layer, ...]:
    """The attention layers of one kind, as an ``AttentionQuery`` names them."""
    return tuple(Layer(name, a.heads) for name, a in attention_layers(unet, kind).items())


def check_plain(name: str, attention: Attention) -> None:
    """Raises ValueError for a layer whose scores are not those of its ``to_q`` and ``to_k``."""
    if getattr(attention, "fused_projections", False):
        raise ValueError(
            f"{name} has fused projections: call unfuse_qkv_projections() on the pipeline first"
        )
    if attention.norm_q is not None or attention.norm_k is not None:
        raise ValueError(f"{name} normalises queries or keys, which isn't supported")


def split_heads(projected: torch.Tensor, attention: Attention) -> torch.Tensor:
    """``(rows, length, channels)`` as ``(rows, heads, length, channels of a head)``."""
    apart: torch.Tensor = projected.unflatten(2, (attention.heads, -1)).transpose(1, 2)
    return apart


def scores(query: torch.Tensor, key: torch.Tensor, attention: Attention) -> torch.Tensor:
    """QKᵀ·scale of queries and keys with heads apart: ``(rows, heads, queries, keys)``.

    In float32, or float64 where the model computes in it.
    """
    if attention.upcast_attention:
        query, key = query.float(), key.float()
    products: torch.Tensor = (query * attention.scale) @ key.transpose(-1, -2)
    return products.to(torch.promote_types(products.dtype, torch.float32))


class FeatureGrid:
    """Notes height and width of the feature map that is being attended over.

    They come from the real feature map, never from a root of the number of places.
    """

    def __init__(self) -> None:
        self._now: tuple[int, int] | None = None
        self._handles: list[RemovableHandle] = []

    def listen(self, unet: torch.nn.Module) -> None:
        """Put a hook before each transformer of a denoiser."""
        for module in unet.modules():
            if isinstance(module, Transformer2DModel):
                self._handles.append(module.register_forward_pre_hook(self._note, with_kwargs=True))

    def remove(self) -> None:
        """Take the hooks away."""
        while self._handles:
            self._handles.pop().remove()

    def of(self, name: str, places: int) -> tuple[int, int]:
        """The grid of a layer; raises ValueError where its places are not one a feature."""
        assert self._now is not None
        height, width = self._now
        if places != height * width:
            raise ValueError(
                f"{name} attends from {places} places over features of {height} x {width}: tokens "
                "are merged or added on the way, so the places can't be told"
            )
        return self._now

    def _note(
        self, _module: torch.nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        features = args[0] if args else kwargs["hidden_states"]
        assert isinstance(features, torch.Tensor)
        self._now = (int(features.shape[2]), int(features.shape[3]))
