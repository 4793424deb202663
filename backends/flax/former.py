"""Checkpoints of diffusers' former Flax pipelines: msgpack files, with names and keys of their own.

diffusers up to 0.39 and transformers up to 4 saved them, and the ``flax`` and ``bf16`` branches on
the Hub are such. Their networks were those of PyTorch but for two choices (an approximate GELU and
another epsilon in the transformers' group norms) that differ from what these weights were trained
with, and that are not made here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.serialization import msgpack_restore

from wordlight.backends.flax.errors import CheckpointError

ENDING = ".msgpack"
#: Keys of configurations that only these classes had; they change how, not what, is computed.
_OF_FLAX = ("dtype", "split_head_dim", "use_memory_efficient_attention")
_KIND = "Flax"
#: The attention of autoencoders as Flax classes named it, and diffusers before 0.17.
FORMER_ATTENTION = {
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
}
#: What a damaged file makes the parser raise: it is plain data to it, and nothing in it is run.
_DAMAGED = (ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError)


def as_today(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration of any part as today's classes have it; others are given back as they are."""
    kind = str(config.get("_class_name"))
    if not kind.startswith(_KIND):
        return config
    kept = {key: value for key, value in config.items() if key not in _OF_FLAX}
    return kept | {"_class_name": kind.removeprefix(_KIND)}


def read_former(
    file: Path, places: Mapping[tuple[Any, ...], str]
) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """The tensors of a msgpack file, by PyTorch's names and in its shapes.

    Args:
        file: as ``save_pretrained`` of a Flax class wrote it.
        places: PyTorch's name for each path of the network's parameters. A tensor that has none is
            given under the name that it has in the file.

    Raises:
        CheckpointError: a damaged file, or one that holds something else than floating numbers.
    """
    try:
        tree = msgpack_restore(file.read_bytes())
    except _DAMAGED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{file} is damaged: {reason}") from None
    if not isinstance(tree, dict):
        raise CheckpointError(f"{file} is damaged: it holds no parameters by name")
    # Modules of a list were numbered with an underscore ("resnets_0"), which today's paths are
    # compared with; the text encoder had a prefix.
    known = {"_".join(map(str, path)): (path, name) for path, name in places.items()}
    for given, tensor in _leaves(tree, ()):
        name = "/".join(given)
        if not _is_numbers(tensor):
            raise CheckpointError(f"{file} is damaged: {name} is no array of floating numbers")
        found = known.get("_".join(_present(given)).removeprefix("text_model_"))
        if found is None:
            yield name, tensor
            continue
        path, torch_name = found
        if path[-1] == "kernel" and tensor.ndim >= 2:
            tensor = tensor.transpose(-1, -2, *range(tensor.ndim - 2))
        yield torch_name, tensor


def _leaves(
    tree: Mapping[Any, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, str(key)))
        else:
            yield (*path, str(key)), value


def _present(path: tuple[str, ...]) -> tuple[str, ...]:
    if len(path) > 2 and path[-3].startswith("attentions_") and path[-2] in FORMER_ATTENTION:
        return (*path[:-2], FORMER_ATTENTION[path[-2]].replace(".", "_"), path[-1])
    return path


def _is_numbers(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) and bool(jnp.issubdtype(leaf.dtype, jnp.floating))
