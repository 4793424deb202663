"""A prompt's tokens with their places, by a fast tokenizer of transformers."""

from __future__ import annotations

from typing import Any

from wordlight.backends.tokens import PromptTooLongError, Tokens


def tokens_of(tokenizer: Any, prompt: str, *, allow_cut: bool = False) -> Tokens:
    """Tokens padded to the context.

    Raises PromptTooLongError when the context is too short, unless ``allow_cut``; ValueError for a
    tokenizer that doesn't tell where tokens come from, or a prompt with a learned word of several
    vectors, which the pipeline writes otherwise than it was given.
    """
    added = tokenizer.get_added_vocab()
    for word in added:
        # diffusers names the further vectors of a learned word so.
        if f"{word}_1" in added and word in prompt:
            raise ValueError(
                f"{word!r} is a textual-inversion word of several vectors, which the pipeline "
                "writes out otherwise than the prompt: its tokens can't be told from the text"
            )
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} gives no character offsets: load the fast tokenizer"
        )
    context = int(tokenizer.model_max_length)
    whole = tokenizer(
        prompt, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
    )
    ids, offsets = list(whole["input_ids"]), [tuple(o) for o in whole["offset_mapping"]]
    special = list(whole["special_tokens_mask"])
    cut_at = None
    if len(ids) > context:
        if not allow_cut:
            room = context - sum(special)
            raise PromptTooLongError(
                f"the prompt has {len(ids) - sum(special)} tokens and the text encoder reads only "
                f"{room}: shorten it; {prompt[offsets[room + 1][0] :]!r} would be cut off"
            )
        # The encoder keeps the beginning and its end mark.
        cut_at = offsets[context - 1][0]
        keep = [*range(context - 1), len(ids) - 1]
        ids, offsets = [ids[i] for i in keep], [offsets[i] for i in keep]
        special = [special[i] for i in keep]
    kinds = ["text"] * len(ids)
    if special[0]:
        kinds[0] = "start"
    if special[-1]:
        kinds[-1] = "end"
    padding = context - len(ids)
    ids += [int(tokenizer.pad_token_id)] * padding
    offsets += [(0, 0)] * padding
    kinds += ["pad"] * padding
    texts = tokenizer.convert_ids_to_tokens(ids)
    return Tokens(prompt, tuple(ids), tuple(texts), tuple(offsets), tuple(kinds), cut_at)
