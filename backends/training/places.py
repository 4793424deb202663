"""A helping goal for the text encoder: to know from the words alone where things will lie.

The loss on images hardly tells: a word like "left" lowers it by less than a hundredth, and only
once the UNet listens, so relations stay unlearned for very long. What a rendered scene is known to
show is used instead, as CLIP's text encoder was trained on pairs of texts and images before any
denoiser saw it. Nothing here touches the UNet or its attention, and the heads aren't part of the
shipped model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from wordlight.backends.prompts import GROUND
from wordlight.backends.training.blueprints import Blueprint

PLACES_WEIGHT = 0.1


def place_targets(
    blueprint: Blueprint, tokenizer: Any, scenes: Sequence[Any]
) -> dict[str, torch.Tensor]:
    """Return the places of things, -1 to 1 from the left and from the top; nan where there is
    nothing to say.

    ``token_places`` ``(n, context, 2)``: at the last token of each object's noun, the mean centre
    of its group. ``named_places`` ``(n, names, 2)``: the mean centre of what each name stands
    for: the objects of a colour, or of a noun.
    """
    offsets = tokenizer(
        [s.scene.prompt for s in scenes], padding="max_length", return_offsets_mapping=True
    )["offset_mapping"]
    by_token = torch.full((len(scenes), len(offsets[0]), 2), float("nan"))
    by_name = torch.full((len(scenes), len(blueprint.named), 2), float("nan"))
    for row, item in enumerate(scenes):
        centres = torch.tensor([(o.x, o.y) for o in item.objects]) / (len(item.image) / 2) - 1.0
        groups = torch.tensor([o.group for o in item.objects])
        ends = [stop for _, stop in offsets[row]]
        for word in item.scene.words:
            if word.tag == "NOUN" and word.referent not in (None, GROUND):
                by_token[row, ends.index(word.stop)] = centres[groups == word.referent].mean(0)
        names = [blueprint.named.index(blueprint.name_of(group)) for group in item.scene.groups]
        drawn = torch.tensor(names)[groups]
        for name in drawn.unique():
            by_name[row, name] = centres[drawn == name].mean(0)
    return {"token_places": by_token, "named_places": by_name}


class PlacesHead(torch.nn.Module):
    """Reads places off the text encoder's output, linearly, by token and off the text's end."""

    def __init__(self, width: int, n_named: int, end_id: int) -> None:
        super().__init__()
        self.end_id = end_id
        self.token = torch.nn.Linear(width, 2)
        # The first noun can't see the words after it; the end of the text sees them all.
        self.end = torch.nn.Linear(width, 2 * n_named)

    def loss(
        self, text: torch.Tensor, ids: torch.Tensor, goals: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Mean squared error of all places that are there; ``text`` ``(batch, context, width)``."""
        last = (ids == self.end_id).int().argmax(1)
        end = text[torch.arange(len(text), device=text.device), last]
        by_name = self.end(end).view(len(text), -1, 2)
        return _error(self.token(text), goals["token_places"]) + _error(
            by_name, goals["named_places"]
        )


def _error(given: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    known = ~goal.isnan()
    squares = torch.where(known, given - goal, 0.0).square()
    return squares.sum() / known.sum().clamp(min=1)
