"""The rows of a comparison: which maps each is scored on, and what is chosen for it beforehand."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wordlight.attribution import registry
from wordlight.attribution.attributor import Steps, TextImageAttributor
from wordlight.backends.backend import Backend
from wordlight.comparisons.budget import Workload, fit
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

    @property
    def method(self) -> TextImageAttributor | None:
        """The method whose maps these are; None for maps from files. Of several variants the
        first: they have all options in common but the one that is calibrated."""
        source = self.variants[0].source
        return source.attributor if isinstance(source, LiveMaps) else None

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
    budget: int | None = None,
    workload: Workload | None = None,
) -> tuple[Entry, ...]:
    """The rows that were asked for, in order.

    Args:
        backend: what named methods are constructed on.
        methods: names, attributors, or attributors by a name of their own; the default ones for
            None.
        maps: folders of precomputed maps, by name.
        samples: the images for which there must be precomputed maps.
        steps: how many evenly spaced steps named methods look at.
        budget: the most that an image may cost, in forward-equivalents; every row's effort is set
            to the most that fits, and DAAM's row of all steps is left out.
        workload: the images that the budget is for.

    Raises:
        ValueError: an unknown method, two rows of one name, an attributor of another backend, rows
            that the budget doesn't pay for.
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
                entries += _named(backend, method, steps, every_step=budget is None)
        else:
            entries.append(_given(backend, name, method, steps))
    samples = tuple(samples)
    for name, folder in maps.items():
        source = PrecomputedMaps(check_name(name), Path(folder), samples)
        entries.append(Entry(name, name, (Variant(name, source),), "precomputed"))
    if budget is not None:
        if workload is None:
            raise ValueError("a budget needs the images that it is for")
        entries = _fitted(entries, budget, workload)
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


def _fitted(entries: Sequence[Entry], budget: int, workload: Workload) -> list[Entry]:
    """The same rows, each variant with the most effort that the budget pays for."""
    live = [
        (entry.label, variant.source.attributor)
        for entry in entries
        for variant in entry.variants
        if isinstance(variant.source, LiveMaps)
    ]
    methods = iter(fit(live, budget, workload))
    fitted = []
    for entry in entries:
        variants = tuple(
            replace(variant, source=LiveMaps(next(methods)))
            if isinstance(variant.source, LiveMaps)
            else variant
            for variant in entry.variants
        )
        fitted.append(replace(entry, variants=variants))
    return fitted


def _named(backend: Backend, name: str, steps: int, *, every_step: bool) -> list[Entry]:
    kind = registry.get(name)
    options = step_options(kind, steps)
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
    if name == "daam" and every_step:
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
    # A method that wraps another has no steps to construct it with, and looks at the inner one's.
    extra = "steps" in method.settings() and method.steps != steps
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


def step_options(kind: type[TextImageAttributor], steps: int) -> dict[str, Any]:
    """What has a method look at so many steps: nothing for one that looks at none by itself."""
    parameters = inspect.signature(kind).parameters.values()
    takes = any(p.name == "steps" or p.kind is p.VAR_KEYWORD for p in parameters)
    return {"steps": steps} if takes else {}


def _step_names(name: str, steps: Steps) -> tuple[str, str]:
    if steps is None:
        return f"{name}-all-steps", f"{name} (all steps)"
    if isinstance(steps, int):
        return f"{name}-{steps}-steps", f"{name} ({steps} steps)"
    numbers = [str(step) for step in steps]
    return f"{name}-steps-{'-'.join(numbers)}", f"{name} (steps {', '.join(numbers)})"
