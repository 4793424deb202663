"""``open_dataset``: a data set by the name of its format and its place."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any

from wordlight.backends.installed import entry_points
from wordlight.comparisons.datasets.dataset import Dataset, DatasetError, OnError

GROUP = "wordlight.datasets"


def formats() -> dict[str, type[Dataset]]:
    """Every installed format of data sets, by name.

    Raises ValueError when a package registers something that is no ``Dataset``, or two packages
    the same name.
    """
    found: dict[str, type[Dataset]] = {}
    for entry in entry_points(GROUP):
        kind = entry.load()
        if not (isinstance(kind, type) and issubclass(kind, Dataset)):
            raise ValueError(f"{entry.value}, registered as {entry.name!r}, is no data set")
        if found.setdefault(entry.name, kind) is not kind:
            raise ValueError(f"two packages register a data set format {entry.name!r}")
    return found


def open_dataset(spec: str | Path | Dataset, *, on_error: OnError = "raise") -> Dataset:
    """Open a data set; nothing of its images is read yet.

    Args:
        spec: ``"FORMAT:PATH"`` or ``"PATH"``, whose format is told by its layout; options follow
            with commas, as ``"voc:VOC2012,subset=val"``. Or a data set, which is given back.
        on_error: see ``Dataset``.

    Raises:
        DatasetError: no such place, format or option, or a layout that no format has.
    """
    if isinstance(spec, Dataset):
        return spec
    name, place, options = parse(str(spec))
    if name is None:
        name = _recognised(Path(place))
    return _made(name, formats()[name], place, options, on_error)


def parse(spec: str) -> tuple[str | None, str, dict[str, str]]:
    """The format (None where it isn't said), the place and the options of a spec."""
    first, *rest = re.split(r",(?=[a-z_]+=)", spec)
    options: dict[str, str] = {}
    for text in rest:
        key, _, value = text.partition("=")
        if key in options:
            raise DatasetError(f"{spec!r} gives {key} twice")
        options[key] = value
    name, colon, place = first.partition(":")
    known = formats()
    if first in known and known[first].placeless:
        return first, "", options
    if colon and re.fullmatch(r"[a-z][a-z0-9-]+", name):
        if name not in known:
            near = get_close_matches(name, known, n=3, cutoff=0.6)
            hint = f"did you mean {' or '.join(near)}" if near else f"there are {', '.join(known)}"
            raise DatasetError(f"no data set format {name!r}; {hint}")
        return name, place, options
    return None, first, options


def _made(
    name: str, kind: type[Dataset], place: str, options: dict[str, str], on_error: OnError
) -> Dataset:
    known = {
        key: parameter
        for key, parameter in signature(kind).parameters.items()
        if key not in ("root", "on_error")
    }
    if unknown := sorted(options.keys() - known.keys()):
        there = ", ".join(known) or "none"
        raise DatasetError(f"a {name} data set has no option {unknown[0]!r}; it has: {there}")
    if not place and not kind.placeless:
        raise DatasetError(f"say where the {name} data set is: {name}:PATH")
    given: dict[str, Any] = {
        key: _yes_or_no(key, text) if isinstance(known[key].default, bool) else text
        for key, text in options.items()
    }
    make: Callable[..., Dataset] = kind
    arguments = () if kind.placeless else (place,)
    try:
        return make(*arguments, on_error=on_error, **given)
    except DatasetError:
        raise
    except ValueError as error:
        raise DatasetError(str(error)) from None


def _yes_or_no(key: str, text: str) -> bool:
    if text not in ("yes", "no"):
        raise DatasetError(f"{key} is yes or no, not {text!r}")
    return text == "yes"


def _recognised(place: Path) -> str:
    known = formats()
    if not place.exists():
        raise DatasetError(
            f"there is no data set at {place}: give a path, or FORMAT:PATH with one of "
            f"{', '.join(known)}"
        )
    found = [name for name, kind in known.items() if kind.recognises(place)]
    if len(found) == 1:
        return found[0]
    what = f"could be {' or '.join(found)}" if found else "has no layout that is known"
    raise DatasetError(
        f"{place} {what}: say its format, as FORMAT:{place} with one of {', '.join(found or known)}"
    )
