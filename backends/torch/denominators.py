"""The output of PyTorch's fused attention together with the denominators of its softmax.

In joint attention a text's column of probabilities needs the sum of its whole row. The fused
kernels compute its logarithm on the way and keep it for training; asked for it they give the very
same output.
"""

from __future__ import annotations

import torch
from torch.nn.attention import SDPBackend

from wordlight.backends.torch.attention_calls import AttentionCall


def with_denominators(call: AttentionCall) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Output and log-sum-exp ``(rows, heads, queries)`` by the kernel that PyTorch would take.

    (None, None) where that kernel gives none, or where the call is recorded for differentiation.
    """
    query, key, value = call.query, call.key, call.value
    assert query is not None
    assert key is not None
    assert value is not None
    recorded = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
    if recorded or call.dropout or query.ndim != 4 or call.other_kernel:
        return None, None
    grouped = key.shape[1] != query.shape[1]
    mask = _additive(call.mask, query)
    chosen = torch._fused_sdp_choice(
        query, key, value, call.mask, 0.0, call.causal, scale=call.scale, enable_gqa=grouped
    )
    kind = query.device.type
    aten = torch.ops.aten
    if chosen == SDPBackend.FLASH_ATTENTION.value and kind == "cpu" and not grouped:
        output, lse = aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, call.causal, attn_mask=mask, scale=call.scale
        )[:2]
        return output, lse
    if kind != "cuda" or grouped or query.shape[-1] % 8 or mask is not None:
        return None, None
    if chosen == SDPBackend.FLASH_ATTENTION.value:
        output, lse = aten._scaled_dot_product_flash_attention(
            query, key, value, 0.0, call.causal, False, scale=call.scale
        )[:2]
        return output, lse
    if chosen == SDPBackend.EFFICIENT_ATTENTION.value:
        output, lse = aten._scaled_dot_product_efficient_attention(
            query, key, value, None, True, 0.0, call.causal, scale=call.scale
        )[:2]
        # Filled up to a multiple of 32 queries.
        return output, lse[..., : query.shape[-2]]
    if chosen == SDPBackend.CUDNN_ATTENTION.value:
        output, lse = aten._scaled_dot_product_cudnn_attention(
            query, key, value, None, True, 0.0, call.causal, False, scale=call.scale
        )[:2]
        return output, lse.reshape(*query.shape[:3])
    return None, None


def _additive(mask: torch.Tensor | None, query: torch.Tensor) -> torch.Tensor | None:
    """A boolean mask as numbers to be added, as PyTorch makes them."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, -torch.inf)
