"""What a denoiser is told, as arrays by name, and back.

Lists and dicts become names with dots (``down_block_additional_residuals.0``). A name that ends in
``*`` has no axis for rows, one that ends in ``=`` is a plain number. All begin with ``+``, but the
further conditioning that a text encoder makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

#: The arguments of one call, by name.
Told = dict[str, Any]
#: What the text encoders of Stable Diffusion XL make besides the embeddings, by the names that
#: trajectories have for it on every framework.
_ENCODED = {
    "added_cond_kwargs.text_embeds": "text_embeds",
    "added_cond_kwargs.time_ids": "time_ids",
}
_BACK = {name: path for path, name in _ENCODED.items()}


class NotRecordableError(ValueError):
    """An argument that is no array and no number, so that a replay can't give it again."""


def flatten(told: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors and plain numbers of nested arguments by their paths.

    Raises NotRecordableError, naming the argument.
    """
    found: dict[str, Any] = {}

    def walk(path: str, value: Any) -> None:
        if value is None:
            return
        if isinstance(value, (torch.Tensor, bool, int, float)):
            found[_ENCODED.get(path, f"+{path}")] = value
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                walk(f"{path}.{key}", inner)
        elif isinstance(value, (list, tuple)):
            for index, inner in enumerate(value):
                walk(f"{path}.{index}", inner)
        else:
            raise NotRecordableError(f"the denoiser was given {path}, a {type(value).__name__}")

    for name, value in told.items():
        walk(name, value)
    return found


def unflatten(added: Mapping[str, torch.Tensor]) -> Told:
    """Nested arguments of what ``flatten`` gave, each array with an axis for rows in front."""
    told: Told = {}
    for name, value in added.items():
        path = _BACK.get(name, name.removeprefix("+"))
        if path.endswith("*"):
            path, given = path[:-1], value[0]
        elif path.endswith("="):
            path, given = path[:-1], value[0].item()
        else:
            given = value
        *outer, last = path.split(".")
        inside = told
        for key in outer:
            inside = inside.setdefault(key, {})
        inside[last] = given
    return {name: _lists(value) for name, value in told.items()}


def _lists(value: Any) -> Any:
    """Dicts whose keys count up from 0 as lists."""
    if not isinstance(value, dict):
        return value
    if value and all(key == str(index) for index, key in enumerate(value)):
        return [_lists(inner) for inner in value.values()]
    return {key: _lists(inner) for key, inner in value.items()}
