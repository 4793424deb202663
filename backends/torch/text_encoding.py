"""The text encoder from its input embeddings on."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection


def takes_input_embeddings(pipe: Any) -> bool:
    """Return whether ``encode_input_embeddings`` gives what a pipeline encodes.

    Not where the text encoder masks the padding: what is padding is told from the words, not from
    embeddings. Not where there is a second one.
    """
    encoder = pipe.text_encoder
    return (
        isinstance(encoder, CLIPTextModel)
        and getattr(pipe, "text_encoder_2", None) is None
        and not getattr(encoder.config, "use_attention_mask", False)
    )


def joined_encoders(pipe: Any) -> tuple[torch.nn.Module, ...]:
    """The CLIP encoders whose states before the last layer, side by side, are what a pipeline
    encodes, as Stable Diffusion XL's; none where a pipeline's embeddings come about otherwise."""
    if not hasattr(pipe, "unet") or getattr(pipe, "text_encoder_2", None) is None:
        return ()
    encoders = (getattr(pipe, "text_encoder", None), pipe.text_encoder_2)
    found = tuple(one for one in encoders if one is not None)
    kinds = (CLIPTextModel, CLIPTextModelWithProjection)
    return found if all(isinstance(one, kinds) for one in found) else ()


def input_embeddings(text_encoder: Any, ids: torch.Tensor) -> torch.Tensor:
    """The token embeddings of ids ``(tokens,)``, before positions are added."""
    table = text_encoder.get_input_embeddings()
    embeddings: torch.Tensor = table(ids.to(table.weight.device))
    return embeddings


def encode_joined(encoders: Sequence[Any], embeddings: torch.Tensor) -> torch.Tensor:
    """The states of ``joined_encoders`` for the input embeddings of all, side by side."""
    widths = [encoder.config.hidden_size for encoder in encoders]
    if embeddings.shape[-1] != sum(widths):
        raise ValueError(
            f"input embeddings must be (batch, tokens, {sum(widths)} channels), not "
            f"{tuple(embeddings.shape)}"
        )
    parts = zip(encoders, embeddings.split(widths, -1), strict=True)
    return torch.cat([encode_input_embeddings(*part, layer=-2) for part in parts], -1)


@torch.no_grad()
def earlier_layers(text_encoder: CLIPTextModel, ids: torch.Tensor) -> list[torch.Tensor]:
    """The hidden states ``(tokens, channels)`` of the layers before the last ("clip skip"), the
    last of them first, after the final norm."""
    ids = ids.to(text_encoder.get_input_embeddings().weight.device)
    states = text_encoder(ids, output_hidden_states=True).hidden_states[1:-1]
    encoder = getattr(text_encoder, "text_model", text_encoder)
    return [encoder.final_layer_norm(state)[0] for state in reversed(states)]


def encode_input_embeddings(
    text_encoder: Any, embeddings: torch.Tensor, *, layer: int | None = None
) -> torch.Tensor:
    """The last hidden states of CLIP's or T5's encoder, ``(batch, tokens, channels)``, of as many
    input embeddings; of another layer of CLIP's, before its final norm, if ``layer`` is given.

    The model runs as it is, causal mask, positions, LoRA and final norm included: for this one
    call CLIP's token table gives the embeddings instead of its own.
    """
    table = text_encoder.get_input_embeddings()
    # T5's positions are relative: it takes any number.
    most = getattr(text_encoder.config, "max_position_embeddings", None)
    width = text_encoder.config.hidden_size
    too_many = embeddings.ndim == 3 and most is not None and embeddings.shape[1] > most
    if embeddings.ndim != 3 or too_many or embeddings.shape[2] != width:
        tokens = "tokens" if most is None else f"up to {most} tokens"
        raise ValueError(
            f"input embeddings must be (batch, {tokens}, {width} channels), "
            f"not {tuple(embeddings.shape)}"
        )

    if "inputs_embeds" in inspect.signature(text_encoder.forward).parameters:
        whole = text_encoder(inputs_embeds=embeddings.to(table.weight.dtype))
        found: torch.Tensor = whole[0]
        return found

    def give(_module: object, _inputs: object, own: torch.Tensor) -> torch.Tensor:
        return embeddings.to(own.dtype)

    handle = table.register_forward_hook(give)
    try:
        # Which ids they are decides nothing but the pooled output, which isn't used.
        ids = torch.zeros(embeddings.shape[:2], dtype=torch.long, device=embeddings.device)
        made = text_encoder(ids, attention_mask=None, output_hidden_states=layer is not None)
        states: torch.Tensor = made[0] if layer is None else made.hidden_states[layer]
    finally:
        handle.remove()
    return states
