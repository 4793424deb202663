"""Listens to a UNet's cross-attention from beside it, without touching what it computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch.utils.hooks import RemovableHandle

from wordlight.backends.attention import AttentionMean, AttentionMeans, AttentionQuery, Layer


def cross_attention_layers(unet: torch.nn.Module) -> dict[str, Attention]:
    """The cross-attention modules of a denoiser, by name, in order."""
    return {
        name: module
        for name, module in unet.named_modules()
        if isinstance(module, Attention) and module.is_cross_attention
    }


def describe_layers(unet: torch.nn.Module) -> tuple[Layer, ...]:
    """The cross-attention layers of a denoiser."""
    return tuple(Layer(name, a.heads) for name, a in cross_attention_layers(unet).items())


@dataclass(frozen=True)
class _Key:
    grid: tuple[int, int]
    step: int | None
    layer: str | None
    head: int | None


class AttentionAccumulator:
    """Running means of cross-attention maps, on the device, in float32.

    One sum a grid (and a kept step, layer and head), ``(images, pixels, tokens)``: memory doesn't
    grow with the number of steps.
    """

    def __init__(self, query: AttentionQuery) -> None:
        self.query = query
        self._sums: dict[_Key, torch.Tensor] = {}
        self._counts: dict[_Key, int] = {}

    def add(self, layer: str, step: int, grid: tuple[int, int], probs: torch.Tensor) -> None:
        """Take in the probabilities ``(images, heads, pixels, tokens)`` of one layer and step."""
        heads = self.query.heads
        if heads is not None:
            probs = probs[:, list(heads)]
        keep = self.query.keep
        place = (step if "step" in keep else None, layer if "layer" in keep else None)
        if "head" in keep:
            for index in range(probs.shape[1]):
                name = heads[index] if heads is not None else index
                self._accumulate(_Key(grid, *place, name), probs[:, index], 1)
        else:
            self._accumulate(_Key(grid, *place, None), probs.sum(1), probs.shape[1])

    def _accumulate(self, key: _Key, total: torch.Tensor, count: int) -> None:
        if key in self._sums:
            self._sums[key] += total
        else:
            self._sums[key] = total.clone()
        self._counts[key] = self._counts.get(key, 0) + count

    @property
    def held_bytes(self) -> int:
        """Memory held by the sums."""
        return sum(s.numel() * s.element_size() for s in self._sums.values())

    def means(self, image: int) -> AttentionMeans:
        """What was averaged for one image."""
        found = []
        for key, total in self._sums.items():
            values = (total[image] / self._counts[key]).T.reshape(-1, *key.grid)
            found.append(
                AttentionMean(
                    values.cpu().numpy().astype(np.float32),
                    self._counts[key],
                    key.step,
                    key.layer,
                    key.head,
                )
            )
        return AttentionMeans(tuple(found))


class AttentionTap:
    """Forward hooks on ``to_q`` and ``to_k`` of each wanted cross-attention layer.

    The probabilities are computed beside the layer's own (fused) attention, so its output is bit
    by bit what it is without the tap, whatever attention processor or LoRA is in place. The grid
    of a layer comes from its real feature map. Use as a context manager: hooks are gone after the
    block, also when setting them up fails half-way.

    Args:
        unet: the denoiser.
        query: which layers.
        rows: gives the batch rows of the pass under way that are conditional.
        latent_grid: gives height and width of the latents of the pass under way.
        receive: called with layer name, grid and probabilities
            ``(rows, heads, pixels, tokens)`` float32.
    """

    def __init__(
        self,
        unet: torch.nn.Module,
        query: AttentionQuery,
        rows: Callable[[], slice],
        latent_grid: Callable[[], tuple[int, int]],
        receive: Callable[[str, tuple[int, int], torch.Tensor], None],
    ) -> None:
        self._unet = unet
        self._query = query
        self._rows, self._latent_grid, self._receive = rows, latent_grid, receive
        self._handles: list[RemovableHandle] = []
        self._grid: tuple[int, int] | None = None
        self._pending: dict[tuple[str, str], torch.Tensor] = {}

    def __enter__(self) -> AttentionTap:
        self._query.check(describe_layers(self._unet))
        try:
            for module in self._unet.modules():
                if isinstance(module, Transformer2DModel):
                    self._handles.append(
                        module.register_forward_pre_hook(self._note_grid, with_kwargs=True)
                    )
            for name, attention in cross_attention_layers(self._unet).items():
                if self._query.wants_layer(name):
                    self._listen(name, attention)
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Take every hook away."""
        while self._handles:
            self._handles.pop().remove()
        self._pending.clear()

    def _listen(self, name: str, attention: Attention) -> None:
        if getattr(attention, "fused_projections", False):
            raise ValueError(
                f"{name} has fused projections: call unfuse_qkv_projections() on the pipeline first"
            )
        if attention.norm_q is not None or attention.norm_k is not None:
            raise ValueError(f"{name} normalises queries or keys, which isn't supported")
        for kind, module in (("q", attention.to_q), ("k", attention.to_k)):

            def take(
                _module: torch.nn.Module, _inputs: object, output: torch.Tensor, kind: str = kind
            ) -> None:
                self._take(name, attention, kind, output)

            self._handles.append(module.register_forward_hook(take))

    def _note_grid(
        self, _module: torch.nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        features = args[0] if args else kwargs["hidden_states"]
        assert isinstance(features, torch.Tensor)
        self._grid = (int(features.shape[2]), int(features.shape[3]))

    @torch.no_grad()
    def _take(self, name: str, attention: Attention, kind: str, output: torch.Tensor) -> None:
        assert self._grid is not None
        if not self._query.wants_grid(self._grid, self._latent_grid()):
            return
        self._pending[name, kind] = output[self._rows()].detach()
        if (name, "q") in self._pending and (name, "k") in self._pending:
            query, key = self._pending.pop((name, "q")), self._pending.pop((name, "k"))
            self._receive(name, self._grid, probabilities(query, key, attention))


def probabilities(query: torch.Tensor, key: torch.Tensor, attention: Attention) -> torch.Tensor:
    """softmax(QKᵀ·scale) of projected queries and keys ``(rows, length, channels)``.

    Gives ``(rows, heads, pixels, tokens)`` in float32, or float64 where the model computes in it.
    """
    rows, pixels, channels = query.shape
    heads = attention.heads
    q = query.reshape(rows, pixels, heads, channels // heads).transpose(1, 2)
    k = key.reshape(rows, key.shape[1], heads, channels // heads).permute(0, 2, 3, 1)
    if attention.upcast_attention:
        q, k = q.float(), k.float()
    scores = (q * attention.scale) @ k
    wide = torch.promote_types(scores.dtype, torch.float32)
    probs: torch.Tensor = scores.softmax(-1, dtype=wide)
    return probs
