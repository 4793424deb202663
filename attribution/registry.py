"""Methods by name: this package's own and every installed one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from wordlight.attribution.attributor import TextImageAttributor, options_of
from wordlight.backends.backend import Backend
from wordlight.backends.installed import entry_points

GROUP = "wordlight.attributors"


class UnknownMethodError(ValueError):
    """No installed method has this name."""


def available() -> dict[str, type[TextImageAttributor]]:
    """Every installed method, by name, in the order of their names.

    Raises ValueError when a package registers something that is no ``TextImageAttributor``, or
    two packages the same name.
    """
    found: dict[str, type[TextImageAttributor]] = {}
    for entry in entry_points(GROUP):
        method = entry.load()
        if not (isinstance(method, type) and issubclass(method, TextImageAttributor)):
            raise ValueError(f"{entry.value}, registered as {entry.name!r}, is no attributor")
        if entry.name in found and found[entry.name] is not method:
            raise ValueError(f"two packages register a method {entry.name!r}")
        found[entry.name] = method
    return found


def get(name: str) -> type[TextImageAttributor]:
    """The method of this name; raises UnknownMethodError with the nearest ones."""
    methods = available()
    if name in methods:
        return methods[name]
    near = difflib.get_close_matches(name.lower(), methods, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(methods)}"
    raise UnknownMethodError(f"no method {name!r}; {hint}")


def check_options(name: str, options: Iterable[str]) -> type[TextImageAttributor]:
    """Return the method of this name; raise ValueError for an option that it doesn't have."""
    kind = get(name)
    taken = options_of(kind)
    if unknown := sorted(set(options) - set(taken)):
        raise ValueError(f"{name} has no option {unknown[0]!r}; it has {', '.join(taken)}")
    return kind


def construct(backend: Backend, name: str, options: Mapping[str, Any]) -> TextImageAttributor:
    """A method by name, with options as its class takes them.

    Raises UnknownMethodError for the name, ValueError for an option that it doesn't have or can't
    have like this.
    """
    kind = check_options(name, options)
    try:
        return kind(backend, **options)
    except TypeError as error:
        raise ValueError(f"{name} can't be had with {dict(options)}: {error}") from None
