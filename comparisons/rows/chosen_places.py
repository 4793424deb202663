"""Rows whose layer, head or step the calibration split chooses, by masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

from wordlight.attribution import registry
from wordlight.attribution.attributor import options_of
from wordlight.backends.backend import Backend
from wordlight.backends.trajectory import step_indices

#: What can be chosen, with the option of the method that it sets.
PLACES = {"layer": "layers", "head": "heads", "step": "steps"}


def chosen_axes(choose: Any) -> tuple[str, ...]:
    """The names in ``choose``: a list, or one text joined by ``+``.

    Raises ValueError for anything else, an unknown name, or one twice.
    """
    names = choose.split("+") if isinstance(choose, str) else choose
    if not isinstance(names, Iterable) or isinstance(names, Mapping):
        raise ValueError(f"choose must be a list of {', '.join(PLACES)}, not {choose!r}")
    found = tuple(names)
    if not found or len(set(found)) != len(found) or not set(found) <= PLACES.keys():
        raise ValueError(
            f"choose must name some of {', '.join(PLACES)}, each once (as in layer+step), not "
            f"{choose!r}"
        )
    return tuple(name for name in PLACES if name in found)


def candidates(
    backend: Backend, method: str, options: Mapping[str, Any], axes: tuple[str, ...]
) -> list[dict[str, Any]]:
    """The options that set each combination of places.

    Steps are those that the row looks at: the table's, or the ``steps`` among its options. Layers
    and heads are the backend's cross-attention layers'.

    Raises:
        ValueError: a method without the option, an option that is given and to be chosen, a backend
            that doesn't name its layers.
    """
    taken = options_of(registry.get(method))
    for axis in axes:
        option = PLACES[axis]
        if option not in taken:
            able = [
                name for name, kind in registry.available().items() if option in options_of(kind)
            ]
            raise ValueError(
                f"{method} can't choose a {axis}: it has no option {option}; these have: "
                + ", ".join(able)
            )
        if axis != "step" and option in options:
            raise ValueError(f"{option} is what {axis} is chosen for: give one of the two")
    layers = getattr(backend, "layers", ())
    if not layers and set(axes) & {"layer", "head"}:
        raise ValueError(f"the {backend.framework} backend doesn't name its layers to choose from")
    looked_at = step_indices(options.get("steps"), backend.denoising_steps())
    steps = [(step,) for step in looked_at]
    found: list[dict[str, Any]] = []
    for layer, step in product(
        layers if "layer" in axes else (None,), steps if "step" in axes else (None,)
    ):
        heads = [layer.heads] if layer is not None else [one.heads for one in layers]
        for head in range(min(heads)) if "head" in axes else (None,):
            values = {
                "layers": None if layer is None else (layer.name,),
                "heads": None if head is None else (head,),
                "steps": step,
            }
            found.append({PLACES[axis]: values[PLACES[axis]] for axis in axes})
    return found
