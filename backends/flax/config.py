"""Reads the config.json of a network: what isn't understood is refused, never ignored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from wordlight.backends.flax.errors import UnsupportedConfigError

Config = TypeVar("Config")


def read_config(
    kind: type[Config],
    given: Mapping[str, Any],
    *,
    only: Mapping[str, Sequence[Any]],
    without_effect: Sequence[str] = (),
) -> Config:
    """A network's configuration from its config.json.

    Args:
        kind: the dataclass to fill; its defaults are those of diffusers or transformers, which old
            files rely on.
        given: the file's content.
        only: keys of which only these values are supported.
        without_effect: keys that change nothing about the network's outputs.

    Raises:
        UnsupportedConfigError: naming the key and what would be right.
    """
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    network = kind.__name__.removesuffix("Config")
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key.startswith("_") or key in without_effect:
            continue
        if key in only and value not in only[key]:
            right = " or ".join(repr(v) for v in only[key])
            raise UnsupportedConfigError(
                f"{network}: {key}={value!r} isn't supported by the Flax backend, only {right}"
            )
        if key in known:
            values[key] = _hashable(value)
        elif key not in only and value is not None:  # None says that the feature isn't used.
            raise UnsupportedConfigError(
                f"{network}: the Flax backend doesn't know {key}={value!r}, and what it would "
                "change about the network"
            )
    return kind(**values)


def check_blocks(network: str, key: str, blocks: Sequence[str], known: Sequence[str]) -> None:
    """Raises UnsupportedConfigError for a block type that isn't known."""
    for block in blocks:
        if block not in known:
            raise UnsupportedConfigError(
                f"{network}: {key} has {block!r}, which the Flax backend doesn't know; it has "
                + ", ".join(known)
            )


def per_level(value: Any, levels: int, key: str) -> tuple[Any, ...]:
    """A setting for each level, given once for all or level by level."""
    if not isinstance(value, tuple):
        return (value,) * levels
    if len(value) != levels:
        raise UnsupportedConfigError(f"{key} has {len(value)} entries for {levels} levels")
    return value


def _hashable(value: Any) -> Any:
    return tuple(_hashable(v) for v in value) if isinstance(value, (list, tuple)) else value
