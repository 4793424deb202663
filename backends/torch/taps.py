"""Listens to a UNet's attention from beside it, without touching what it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch.utils.hooks import RemovableHandle

from wordlight.backends.attention import AttentionQuery, OtherKeys, shares_of_others
from wordlight.backends.torch.attention_layers import (
    FeatureGrid,
    attention_layers,
    check_plain,
    describe_layers,
    scores,
    split_heads,
)


class AttentionTap:
    """Forward hooks on ``to_q`` and ``to_k`` of each wanted attention layer.

    The probabilities are computed beside the layer's own (fused) attention, so its output is bit
    by bit what it is without the tap, whatever attention processor or LoRA is in place. The grid
    of a layer comes from its real feature map. Use as a context manager: hooks are gone after the
    block, also when setting them up fails half-way.

    Args:
        unet: the denoiser.
        query: which layers, of which kind.
        rows: gives the batch rows of the pass under way that are conditional.
        latent_grid: gives height and width of the latents of the pass under way.
        receive: called with layer name, grid and probabilities
            ``(rows, heads, places, keys)`` float32.
        others: words whose attention is wanted instead of that of the prompt's tokens; see
            ``shares_of_others``.
    """

    def __init__(
        self,
        unet: torch.nn.Module,
        query: AttentionQuery,
        rows: Callable[[], slice],
        latent_grid: Callable[[], tuple[int, int]],
        receive: Callable[[str, tuple[int, int], torch.Tensor], None],
        others: OtherKeys | None = None,
    ) -> None:
        self._unet = unet
        self._query = query
        self._rows, self._latent_grid, self._receive = rows, latent_grid, receive
        self._others = others
        self._grid = FeatureGrid()
        self._handles: list[RemovableHandle] = []
        self._pending: dict[tuple[str, str], torch.Tensor] = {}

    def __enter__(self) -> AttentionTap:
        self._query.check(describe_layers(self._unet, self._query.kind))
        try:
            self._grid.listen(self._unet)
            for name, attention in attention_layers(self._unet, self._query.kind).items():
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
        self._grid.remove()
        while self._handles:
            self._handles.pop().remove()
        self._pending.clear()

    def _listen(self, name: str, attention: Attention) -> None:
        check_plain(name, attention)
        others = None if self._others is None else _other_keys(name, attention, self._others)
        for kind, module in (("q", attention.to_q), ("k", attention.to_k)):

            def take(
                _module: torch.nn.Module, _inputs: object, output: torch.Tensor, kind: str = kind
            ) -> None:
                self._take(name, attention, kind, output, others)

            self._handles.append(module.register_forward_hook(take))

    @torch.no_grad()
    def _take(
        self,
        name: str,
        attention: Attention,
        kind: str,
        output: torch.Tensor,
        others: OtherKeys | None,
    ) -> None:
        self._pending[name, kind] = output[self._rows()].detach()
        if (name, "q") not in self._pending or (name, "k") not in self._pending:
            return
        query, key = self._pending.pop((name, "q")), self._pending.pop((name, "k"))
        grid = self._grid.of(name, query.shape[1])
        if not self._query.wants_grid(grid, self._latent_grid()):
            return
        query, key = split_heads(query, attention), split_heads(key, attention)
        own = scores(query, key, attention)
        if others is None:
            probs = own.softmax(-1)
        else:
            probs = shares_of_others(own, scores(query, others.embeddings, attention), others)
        self._receive(name, grid, probs)


@torch.no_grad()
def _other_keys(name: str, attention: Attention, others: OtherKeys) -> OtherKeys:
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
    return OtherKeys(split_heads(attention.to_k(embeddings[None]), attention), *made)
