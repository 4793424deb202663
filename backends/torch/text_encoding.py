"""The text encoder from its input embeddings on."""

from __future__ import annotations

import torch
from transformers import CLIPTextModel


def takes_input_embeddings(text_encoder: torch.nn.Module) -> bool:
    """Whether ``encode_input_embeddings`` is right for a text encoder.

    Not where it masks the padding: what is padding is told from the words, not from embeddings.
    """
    return isinstance(text_encoder, CLIPTextModel) and not getattr(
        text_encoder.config, "use_attention_mask", False
    )


def input_embeddings(text_encoder: CLIPTextModel, ids: torch.Tensor) -> torch.Tensor:
    """The token embeddings of ids ``(tokens,)``, before positions are added."""
    embeddings: torch.Tensor = text_encoder.get_input_embeddings()(ids)
    return embeddings


def encode_input_embeddings(text_encoder: CLIPTextModel, embeddings: torch.Tensor) -> torch.Tensor:
    """The last hidden states, ``(batch, tokens, channels)``, of as many input embeddings.

    The model runs as it is, causal mask, positions, LoRA and final norm included: for this one
    call its token table gives the embeddings instead of its own.
    """
    table = text_encoder.get_input_embeddings()
    wanted = (text_encoder.config.max_position_embeddings, text_encoder.config.hidden_size)
    if embeddings.ndim != 3 or embeddings.shape[1] > wanted[0] or embeddings.shape[2] != wanted[1]:
        raise ValueError(
            f"input embeddings must be (batch, up to {wanted[0]} tokens, {wanted[1]} channels), "
            f"not {tuple(embeddings.shape)}"
        )

    def give(_module: object, _inputs: object, own: torch.Tensor) -> torch.Tensor:
        return embeddings.to(own.dtype)

    handle = table.register_forward_hook(give)
    try:
        # Which ids they are decides nothing but the pooled output, which isn't used.
        ids = torch.zeros(embeddings.shape[:2], dtype=torch.long, device=embeddings.device)
        states: torch.Tensor = text_encoder(ids, attention_mask=None)[0]
    finally:
        handle.remove()
    return states
