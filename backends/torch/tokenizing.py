"""A prompt's tokens with their places, as a pipeline's denoiser sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wordlight.backends.tokens import PromptTooLongError, Tokens
from wordlight.backends.torch.text_streams import ragged_side, streams_of


def tokenize(
    pipe: Any,
    prompt: str,
    *,
    allow_cut: bool = False,
    options: Mapping[str, Any] | None = None,
    length: int | None = None,
) -> Tokens:
    """Return the tokens of a prompt that a pipeline's denoiser attends to.

    Args:
        pipe: the pipeline.
        prompt: the words.
        allow_cut: whether a prompt that is too long loses its end.
        options: further arguments of the pipeline's ``encode_prompt``.
        length: the number of positions of the embeddings, where a batch's longest prompt decides
            it: the rest is padding.

    Raises:
        PromptTooLongError: a prompt that no encoder holds, unless ``allow_cut``.
        ValueError: a tokenizer that doesn't tell where tokens come from, a prompt whose tokens
            can't be told from its text, fewer positions than tokens.
    """
    streams = streams_of(pipe, prompt, options or {})
    tokens = streams[0][1] if len(streams) == 1 else Tokens.joined(streams)
    if tokens.cut_at is not None and not allow_cut:
        if len(streams) == 1:
            streams_of(pipe, prompt, options or {}, allow_cut=False)
        n_read = max(len(part.positions("text")) for _, part in streams)
        raise PromptTooLongError(
            f"the prompt is longer than the {n_read} tokens that the text encoders read of it: "
            f"shorten it; {prompt[tokens.cut_at :]!r} would be cut off"
        )
    if length is None or length == len(tokens):
        return tokens
    side = ragged_side(pipe)
    if length < len(tokens) or side is None:
        raise ValueError(
            f"the denoiser was given embeddings of {length} positions, and {prompt!r} has "
            f"{len(tokens)} tokens, padding included: they were made of other words, or are "
            "prompt_embeds of several chunks, from which the words of longer prompts can't be told"
        )
    return tokens.padded(length, left=side == "left")
