"""Reads the config.json of a network: what isn't understood is refused, never ignored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from wordlight.backends.flax.errors import UnsupportedConfigError

Config = TypeVar("Config")


def read_config(
    kind: type[Config],
    given: Mapping[str, Any],
    *,
    only: Mapping[str, Sequence[Any]],
    without_effect: Sequence[str] = (),
    or_zero: Sequence[str] = (),
) -> Config:
    """A network's configuration from its config.json.

    Args:
        kind: the dataclass to fill; its defaults are those of diffusers or transformers, which old
            files rely on.
        given: the file's content.
        only: keys of which only these values are supported.
        without_effect: keys that change nothing about the network's outputs.
        or_zero: keys whose numbers may be zero; all others are above.

    Raises:
        UnsupportedConfigError: naming the key and what would be right.
    """
    hints = get_type_hints(kind)
    known = {f.name: hints[f.name] for f in fields(kind)}  # type: ignore[arg-type]
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
            if not _fits(values[key], known[key]):
                raise UnsupportedConfigError(
                    f"{network}: {key} must be {_in_words(known[key])}, not {value!r}"
                )
            least = min(_numbers(values[key]), default=1)
            if least < 0 or (least == 0 and key not in or_zero):
                right = "0 or more" if key in or_zero else "above 0"
                raise UnsupportedConfigError(f"{network}: {key} must be {right}, not {value!r}")
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


def _numbers(value: Any) -> list[float]:
    each = value if isinstance(value, tuple) else (value,)
    return [one for one in each if type(one) in (int, float)]


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value of a JSON file is of the type that an annotation names."""
    if get_origin(hint) is UnionType:
        return any(_fits(value, one) for one in get_args(hint))
    if get_origin(hint) is tuple:
        inside = get_args(hint)
        right = isinstance(value, tuple) and value != ()
        if ... not in inside:
            right = right and len(value) == len(inside)
        return right and all(_fits(one, inside[0]) for one in value)
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is hint


_WORDS = {
    bool: ("true or false", ""),
    float: ("a number", "numbers"),
    int: ("a whole number", "whole numbers"),
    str: ("text", "texts"),
    NoneType: ("null", ""),
}


def _in_words(hint: Any) -> str:
    if get_origin(hint) is UnionType:
        return ", or ".join(map(_in_words, get_args(hint)))
    if get_origin(hint) is tuple:
        first, *others = get_args(hint)
        count = "" if others == [...] else f"{1 + len(others)} "
        return f"a list of {count}{_WORDS[first][1]}"
    return _WORDS[hint][0]


def _hashable(value: Any) -> Any:
    return tuple(_hashable(v) for v in value) if isinstance(value, (list, tuple)) else value
