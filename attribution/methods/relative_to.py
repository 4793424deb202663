"""Attention to a word relative to what other positions of the context get."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from wordlight.attribution.methods.attention_average import Maps
from wordlight.attribution.options import one_of
from wordlight.backends.tokens import Tokens

#: What the attention to a word is divided by: the attention to ``<start>``, to all special
#: positions (``<start>``, ``<end>``, ``<pad>``, ``<template>``, ``<register>``), or to the prompt's
#: words.
RelativeTo = Literal["start", "special", "words"]
_KINDS: dict[RelativeTo, tuple[str, ...]] = {
    "start": ("start",),
    "special": ("start", "end", "pad", "template", "register"),
    "words": ("text",),
}
#: Least divisor, as a share of its mean over the image: resizing undershoots, and may leave zero.
_LEAST = 1e-3


def check_relative_to(relative_to: object) -> RelativeTo | None:
    """Return a ``relative_to`` option; raises ValueError for an unknown one."""
    return None if relative_to is None else one_of("relative_to", relative_to, get_args(RelativeTo))


def divide_attention(
    maps: Maps, tokens: Tokens, relative_to: RelativeTo | None, n_sides: int = 2
) -> Maps:
    """Divide attention maps by the attention to a reference, pixel by pixel.

    With ``"start"`` and ``"special"`` each quotient is then divided by its maximum over the image,
    so that it ends at 1. With ``"words"`` it is a share: the prompt's words add up to 1 at each
    pixel. A divisor below a thousandth of its mean over the image counts as that.

    Args:
        maps: ``(..., tokens, y, x)``.
        tokens: of the prompt.
        relative_to: the reference; None leaves the maps as they are.
        n_sides: 3 where frames come before ``y``; a video is one image then.

    Returns:
        Quotients of the same shape.

    Raises:
        ValueError: a prompt without a position of the reference.
    """
    if relative_to is None:
        return maps
    positions = [p for kind in _KINDS[relative_to] for p in tokens.positions(kind)]
    if not positions:
        there = ", ".join(dict.fromkeys(tokens.kinds))
        raise ValueError(
            f"relative_to={relative_to!r} divides by the attention to {relative_to} positions, and "
            f"this prompt has none: its positions are {there}"
        )
    sides = tuple(range(-n_sides, 0))
    reference = np.take(maps, positions, -1 - n_sides).sum(axis=-1 - n_sides, keepdims=True)
    mean = reference.mean(axis=sides, keepdims=True)
    quotients: Maps = maps / np.maximum(reference, np.maximum(_LEAST * mean, 1e-30))
    if relative_to != "words":
        highest = quotients.max(axis=sides, keepdims=True)
        quotients = quotients / np.where(highest > 0, highest, 1.0)
    return quotients
