"""The rows of a comparison: which maps each is scored on, and what is chosen for it beforehand."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wordlight.attribution import registry
from wordlight.attribution.attributor import Steps, TextImageAttributor
from wordlight.backends.backend import Backend
from wordlight.comparisons.cells import check_name
from wordlight.comparisons.sources import LiveMaps, MapSource, PrecomputedMaps

Methods = Sequence[str | TextImageAttributor] | Mapping[str, TextImageAttributor]

DEFAULT_METHODS = (
    "daam",
    "input-x-gradient",
    "occlusion",
    "uniform",
    "center",
    "random",
    "guidance-norm",
    "shuffled-word",
)
SHUFFLED = "shuffled-word"
#: Options that the calibration split chooses, with what it chooses from.
CALIBRATED = {"center": ("width", (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6))}


@dataclass(frozen=True, eq=False)
class Variant:
    """One way to set an entry's options: ``cell`` names its files on the calibration split."""

    cell: str
    source: MapSource
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Entry:
    """A row of the table.

    Attributes:
        name: in results and file names, such as ``"daam-all-steps"``.
        label: in tables, such as ``"daam (all steps)"``.
        variants: where the maps come from; several where the calibration split chooses one.
        family: the method's, ``"control"`` for controls, ``"precomputed"`` for files.
        extra: whether it looks at other steps than the table's, and so stands apart.
        shuffled: whether each word is scored on the map of another object's word.
    """

    name: str
    label: str
    variants: tuple[Variant, ...]
    family: str
    extra: bool = False
    shuffled: bool = False

    def settings(self) -> dict[str, Any]:
        """All that changes its scores, as plain data."""
        first = self.variants[0]
        settings: dict[str, Any] = {**first.source.settings(), "shuffled": self.shuffled}
        for option in first.options:
            settings[option] = [variant.options[option] for variant in self.variants]
        return settings


def build_entries(
    backend: Backend,
    methods: Methods | None,
    maps: Mapping[str, Path],
    samples: Iterable[str],
    steps: int,
) -> tuple[Entry, ...]:
    """The rows that were asked for, in order.

    Args:
        backend: what named methods are constructed on.
        methods: names, attributors, or attributors by a name of their own; the default ones for
            None.
        maps: folders of precomputed maps, by name.
        samples: the images for which there must be precomputed maps.
        steps: how many evenly spaced steps named methods look at.

    Raises:
        ValueError: an unknown method, two rows of one name, an attributor of another backend.
    """
    wanted = DEFAULT_METHODS if methods is None else methods
    if isinstance(wanted, str):
        raise ValueError(f"methods must be a list of methods, not the string {wanted!r}")
    entries: list[Entry] = []
    shuffle = False
    pairs: Iterable[tuple[str | None, str | TextImageAttributor]]
    pairs = wanted.items() if isinstance(wanted, Mapping) else ((None, one) for one in wanted)
    for name, method in pairs:
        if isinstance(method, str):
            if method == SHUFFLED:
                shuffle = True
            else:
                entries += _named(backend, method, steps)
        else:
            entries.append(_given(backend, name, method, steps))
    samples = tuple(samples)
    for name, folder in maps.items():
        source = PrecomputedMaps(check_name(name), Path(folder), samples)
        entries.append(Entry(name, name, (Variant(name, source),), "precomputed"))
    if shuffle:
        entries += [_shuffled(e) for e in entries if e.family != "control" and not e.extra]
        if not any(e.shuffled for e in entries):
            raise ValueError(f"{SHUFFLED} takes another method's maps: name a method beside it")
    if not entries:
        raise ValueError("there is nothing to compare: name at least one method")
    for position, entry in enumerate(entries):
        check_name(entry.name)
        if entry.name in {other.name for other in entries[:position]}:
            raise ValueError(
                f"two rows would be called {entry.name!r}: give each method once, or attributors "
                "by names of their own ({name: attributor})"
            )
    # Extra rows come last, so that nobody ranks them with the others.
    return tuple(sorted(entries, key=lambda entry: entry.extra))


def _named(backend: Backend, name: str, steps: int) -> list[Entry]:
    kind = registry.get(name)
    options: dict[str, Any] = {"steps": steps} if _takes_steps(kind) else {}
    if name in CALIBRATED:
        option, values = CALIBRATED[name]
        variants = tuple(
            Variant(
                f"{name}.{option}-{value:g}",
                LiveMaps(kind(backend, **{**options, option: value})),
                {option: value},
            )
            for value in values
        )
    else:
        variants = (Variant(name, LiveMaps(kind(backend, **options))),)
    entries = [Entry(name, name, variants, kind.family)]
    if name == "daam":
        every = LiveMaps(kind(backend, steps=None))
        slug, label = _step_names(name, None)
        entries.append(Entry(slug, label, (Variant(slug, every),), kind.family, extra=True))
    return entries


def _given(backend: Backend, name: str | None, method: TextImageAttributor, steps: int) -> Entry:
    if not isinstance(method, TextImageAttributor):
        raise ValueError(f"a method is a name or an attributor, not {method!r}")
    if method.backend is not backend:
        raise ValueError(
            f"{method.name} was constructed on another backend than the one that is compared on"
        )
    slug = label = name or method.name
    extra = _takes_steps(type(method)) and method.steps != steps
    if extra:
        slug, label = _step_names(slug, method.steps)
    return Entry(slug, label, (Variant(slug, LiveMaps(method)),), method.family, extra=extra)


def _shuffled(entry: Entry) -> Entry:
    (variant,) = entry.variants
    name = f"{SHUFFLED}.{entry.name}"
    return Entry(
        name,
        f"{SHUFFLED} ({entry.label})",
        # The files of the maps are the method's own; only the cells have another name.
        (variant,),
        "control",
        shuffled=True,
    )


def _takes_steps(kind: type[TextImageAttributor]) -> bool:
    parameters = inspect.signature(kind).parameters.values()
    return any(p.name == "steps" or p.kind is p.VAR_KEYWORD for p in parameters)


def _step_names(name: str, steps: Steps) -> tuple[str, str]:
    if steps is None:
        return f"{name}-all-steps", f"{name} (all steps)"
    if isinstance(steps, int):
        return f"{name}-{steps}-steps", f"{name} ({steps} steps)"
    numbers = [str(step) for step in steps]
    return f"{name}-steps-{'-'.join(numbers)}", f"{name} (steps {', '.join(numbers)})"
