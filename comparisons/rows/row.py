"""The rows of a comparison: which maps each is scored on, and what is chosen for it beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from wordlight.attribution import registry
from wordlight.attribution.attributor import Steps, TextImageAttributor, options_of
from wordlight.backends.backend import Backend
from wordlight.backends.trajectory import step_indices
from wordlight.comparisons.rows.budget import Workload, fit, refuse_both
from wordlight.comparisons.rows.chosen_places import candidates, chosen_axes
from wordlight.comparisons.rows.map_sources import LiveMaps, MapSource, PrecomputedMaps
from wordlight.comparisons.store.cells import check_name

#: A name; a name with options, ``{"method": "integrated-gradients", "name": "ig", "n_steps": 16}``;
#: or an attributor.
Method = str | Mapping[str, Any] | TextImageAttributor
Methods = Sequence[Method] | Mapping[str, TextImageAttributor]

DEFAULT_METHODS = (
    "daam",
    "self-attention-refined",
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
    """One way to set an row's options: ``cell`` names its files on the calibration split."""

    cell: str
    source: MapSource
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Row:
    """A row of the table.

    Attributes:
        name: of this row alone, such as ``"daam-all-steps"``; with several frameworks
            ``"daam-all-steps@flax"``.
        label: in tables, such as ``"daam (all steps)"`` or ``"daam (all steps, flax)"``.
        variants: the origin of the maps; several where the calibration split chooses one.
        family: the method's, ``"control"`` for controls, ``"precomputed"`` for files.
        extra: whether it stands apart: it looks at other steps than the table's, or masks chose
            where it looks.
        shuffled: whether each word is scored on the map of another object's word.
        framework: the framework that makes the maps; the run's first where none does.
        reference: whether it stands here only since some metric's own truth is its maps.
    """

    name: str
    label: str
    variants: tuple[Variant, ...]
    family: str
    extra: bool = False
    shuffled: bool = False
    framework: str = ""
    reference: bool = False

    @property
    def method(self) -> TextImageAttributor | None:
        """The method whose maps these are; None for maps from files. Of several variants the
        first: they have all options in common but the one that is calibrated."""
        return self.method_of(self.variants[0])

    def method_of(self, variant: Variant) -> TextImageAttributor | None:
        """The method of one variant; None for maps from files."""
        source = variant.source
        return source.attributor if isinstance(source, LiveMaps) else None

    def shows(self, method: str) -> bool:
        """Return whether its maps are those of the method of this name, each word its own."""
        return not self.shuffled and self.method is not None and self.method.name == method

    def on_framework(self) -> Row:
        """Return the row as it stands among several frameworks: name and label say which it is."""
        if self.label.endswith(")"):
            label = f"{self.label[:-1]}, {self.framework})"
        else:
            label = f"{self.label} ({self.framework})"
        return replace(self, name=f"{self.name}@{self.framework}", label=label)

    def settings(self) -> dict[str, Any]:
        """All that changes its scores, as plain data."""
        first = self.variants[0]
        settings: dict[str, Any] = {**first.source.settings(), "shuffled": self.shuffled}
        for option in first.options:
            settings[option] = [variant.options[option] for variant in self.variants]
        return settings


def build_rows(
    backend: Backend,
    methods: Methods | None,
    maps: Mapping[str, PrecomputedMaps],
    steps: int,
    budget: int | None = None,
    workload: Workload | None = None,
) -> tuple[Row, ...]:
    """The rows that were asked for on one backend, in order.

    Args:
        backend: the backend of named methods.
        methods: names, attributors, or attributors by a name of their own; the default ones for
            None.
        maps: precomputed maps, by the names of their rows.
        steps: the number of evenly spaced steps that named methods look at.
        budget: the most that an image may cost, in forward-equivalents; every row's effort is set
            to the most that fits, and DAAM's row of all steps is left out.
        workload: the images that the budget is for.

    Raises:
        ValueError: an unknown method, two rows of one name, an attributor of another backend, rows
            that the budget doesn't pay for.
    """
    rows: list[Row] = []
    shuffle = False
    for name, method in _pairs(methods):
        if isinstance(method, Mapping):
            rows.append(_specified(backend, method, steps))
            if budget is not None and (made := rows[-1].method) is not None:
                refuse_both(made, method)
        elif isinstance(method, str):
            if method == SHUFFLED:
                shuffle = True
            else:
                rows += _named(backend, method, steps, every_step=budget is None)
        else:
            rows.append(_given(backend, name, method, steps))
    for name, source in maps.items():
        variants = (Variant(name, source),)
        framework = backend.framework
        rows.append(Row(name, name, variants, "precomputed", framework=framework))
    if budget is not None:
        if workload is None:
            raise ValueError("a budget needs the images that it is for")
        rows = _fitted(rows, budget, workload)
    if shuffle:
        rows += [_shuffled(e) for e in rows if e.family != "control" and not e.extra]
        if not any(e.shuffled for e in rows):
            raise ValueError(f"{SHUFFLED} takes another method's maps: name a method beside it")
    if not rows:
        raise ValueError("there is nothing to compare: name at least one method")
    for position, row in enumerate(rows):
        check_name(row.name)
        if row.name in {other.name for other in rows[:position]}:
            raise ValueError(
                f"two rows would be called {row.name!r}: give each method once, or names of "
                "their own (name=... among a method's options, {name: attributor} in Python)"
            )
    # Extra rows come last, so that nobody ranks them with the others.
    return tuple(sorted(rows, key=lambda row: row.extra))


def rows_on(
    backends: Sequence[Backend],
    methods: Methods | None,
    maps: Mapping[str, PrecomputedMaps],
    steps: int,
    budget: int | None = None,
    workload: Workload | None = None,
) -> tuple[Row, ...]:
    """The rows that were asked for, on each of the backends.

    Args are ``build_rows``'; names go to every backend, an attributor to the one that it was
    constructed on, precomputed maps stand once. Raises as ``build_rows`` does.
    """
    if len(backends) == 1:
        return build_rows(backends[0], methods, maps, steps, budget, workload)
    pairs = list(_pairs(methods))
    for _, one in pairs:
        if isinstance(one, TextImageAttributor) and one.backend not in backends:
            raise ValueError(_other_backend(one))
    rows: list[Row] = []
    for backend in backends:
        here = [
            (name, one)
            for name, one in pairs
            if not isinstance(one, TextImageAttributor) or one.backend is backend
        ]
        wanted: Methods = [one for _, one in here]
        if isinstance(methods, Mapping):
            wanted = {name: one for name, one in here if name is not None}  # type: ignore[misc]
        given = maps if backend is backends[0] else {}
        if not (wanted or given):
            continue
        built = build_rows(backend, wanted, given, steps, budget, workload)
        rows += [row.on_framework() for row in built]
    return tuple(sorted(rows, key=lambda row: row.extra))


def with_references(
    rows: Sequence[Row], backends: Sequence[Backend], references: Iterable[str]
) -> tuple[Row, ...]:
    """The rows, and one of each of these methods on every backend that has none yet."""
    added = []
    for name in references:
        for backend in backends:
            own = (row for row in rows if row.framework == backend.framework)
            if not any(row.shows(name) for row in own):
                method = registry.get(name)(backend)
                variant = Variant(name, LiveMaps(method))
                family, where = method.family, backend.framework
                row = Row(name, name, (variant,), family, framework=where, reference=True)
                added.append(row if len(backends) == 1 else row.on_framework())
    taken = {row.name for row in rows}
    for row in added:
        if row.name in taken:
            raise ValueError(
                f"the row {row.name} is a metric's own truth here: give yours another name"
            )
    return (*rows, *added)


def _pairs(methods: Methods | None) -> Iterable[tuple[str | None, Method]]:
    wanted = DEFAULT_METHODS if methods is None else methods
    if isinstance(wanted, str | TextImageAttributor | type):
        raise ValueError(f"methods must be a list of methods, [{wanted!r}], not {wanted!r}")
    if isinstance(wanted, Mapping):
        return wanted.items()
    return ((None, one) for one in wanted)


def _fitted(rows: Sequence[Row], budget: int, workload: Workload) -> list[Row]:
    """Return the rows, each variant with the most effort that the budget pays for."""
    live = [
        (row.label, variant.source.attributor)
        for row in rows
        for variant in row.variants
        if isinstance(variant.source, LiveMaps)
    ]
    methods = iter(fit(live, budget, workload))
    fitted = []
    for row in rows:
        variants = tuple(
            replace(variant, source=LiveMaps(next(methods)))
            if isinstance(variant.source, LiveMaps)
            else variant
            for variant in row.variants
        )
        fitted.append(replace(row, variants=variants))
    return fitted


def _named(backend: Backend, name: str, steps: int, *, every_step: bool) -> list[Row]:
    kind = registry.get(name)
    options = step_options(kind, steps)
    if name in CALIBRATED:
        variants = _calibrated(backend, name, name, options)
    else:
        variants = (Variant(name, LiveMaps(kind(backend, **options))),)
    where = backend.framework
    rows = [Row(name, name, variants, kind.family, framework=where)]
    if name == "daam" and every_step:
        slug, label = _step_names(name, None)
        every = (Variant(slug, LiveMaps(kind(backend, steps=None))),)
        rows.append(Row(slug, label, every, kind.family, extra=True, framework=where))
    return rows


def _calibrated(
    backend: Backend, method: str, name: str, options: Mapping[str, Any]
) -> tuple[Variant, ...]:
    """Return the variants from which the calibration split chooses for a row of this name."""
    option, values = CALIBRATED[method]
    return tuple(
        Variant(
            f"{name}.{option}-{value:g}",
            LiveMaps(registry.construct(backend, method, {**options, option: value})),
            {option: value},
        )
        for value in values
    )


def _specified(backend: Backend, wanted: Mapping[str, Any], steps: int) -> Row:
    """A method by name with options of its own."""
    options = dict(wanted)
    method, name = options.pop("method", None), options.pop("name", None)
    places = options.pop("choose", None)
    if not isinstance(method, str) or method == SHUFFLED:
        raise ValueError(
            f"a method with options needs the name of a method as 'method', not {method!r}"
        )
    if name is not None and not isinstance(name, str):
        raise ValueError(f"the name of a row must be text, not {name!r}")
    kind = registry.get(method)
    if isinstance(options.get("steps"), list):
        options["steps"] = tuple(options["steps"])
    given = {**step_options(kind, steps), **options}
    if places is not None:
        return _by_masks(backend, method, name, given, chosen_axes(places))
    if method in CALIBRATED and CALIBRATED[method][0] not in options:
        called = name or method
        variants = _calibrated(backend, method, called, given)
        return Row(called, called, variants, kind.family, framework=backend.framework)
    return _given(backend, name, registry.construct(backend, method, given), steps)


def _by_masks(
    backend: Backend,
    method: str,
    name: str | None,
    options: Mapping[str, Any],
    axes: tuple[str, ...],
) -> Row:
    """A row whose places the calibration split's masks choose: it stands apart from those that saw
    no mask."""
    called = name or f"{method}-chosen-{'-'.join(axes)}"
    variants = tuple(
        Variant(
            f"{called}.place-{number}",
            LiveMaps(registry.construct(backend, method, {**options, **places})),
            places,
        )
        for number, places in enumerate(candidates(backend, method, options, axes))
    )
    label = f"{name or method} ({' and '.join(axes)} chosen by masks)"
    family = registry.get(method).family
    return Row(called, label, variants, family, extra=True, framework=backend.framework)


def _given(backend: Backend, name: str | None, method: TextImageAttributor, steps: int) -> Row:
    if not isinstance(method, TextImageAttributor):
        hint = ""
        if isinstance(method, type) and issubclass(method, TextImageAttributor):
            hint = f": say {method.name!r}, or construct it, {method.__name__}(backend)"
        raise ValueError(f"a method is a name or an attributor, not {method!r}{hint}")
    if method.backend is not backend:
        raise ValueError(_other_backend(method))
    slug = label = name or method.name
    # A method that wraps another has no steps to construct it with, and looks at the inner one's.
    extra = "steps" in method.settings() and method.steps != steps
    if extra:
        slug, label = _step_names(slug, method.steps)
    if method.saw_masks:
        label, extra = f"{label} (fitted to masks)", True
    return Row(
        slug,
        label,
        (Variant(slug, LiveMaps(method)),),
        method.family,
        extra=extra,
        framework=backend.framework,
    )


def _other_backend(method: TextImageAttributor) -> str:
    return f"{method.name} was constructed on another backend than the one that is compared on"


def _shuffled(row: Row) -> Row:
    (variant,) = row.variants
    name = f"{SHUFFLED}.{row.name}"
    return Row(
        name,
        f"{SHUFFLED} ({row.label})",
        # The files of the maps are the method's own; only the cells have another name.
        (variant,),
        "control",
        shuffled=True,
        framework=row.framework,
    )


def check_methods(methods: Methods | None, steps: int, sampling_steps: int | None) -> None:
    """Check the methods that are named, as far as that needs no model.

    Args:
        methods: as ``compare`` takes them.
        steps: the number of evenly spaced steps they look at where they don't say.
        sampling_steps: the number of steps an image is drawn in, where that was asked for.

    Raises:
        ValueError: an unknown method or option, more steps than there can be.
    """
    for _, one in _pairs(methods):
        given = {"method": one} if isinstance(one, str) else one
        if not isinstance(given, Mapping) or not isinstance(given.get("method"), str):
            continue
        name = given["method"]
        options = {k: v for k, v in given.items() if k not in ("method", "name", "choose")}
        kind = registry.check_options(name, options)
        if sampling_steps is not None:
            # Schedulers of second order call the denoiser twice a step.
            seen = {**step_options(kind, steps), **options}.get("steps")
            check_steps(name, seen, 2 * sampling_steps)


def check_steps(who: str, steps: Steps, drawn: Backend | int) -> None:
    """Raise ValueError, with the row's name, for steps that images lack.

    ``drawn`` is how many steps they have, or the backend that draws them; one that doesn't say in
    how many is believed.
    """
    try:
        step_indices(steps, drawn if isinstance(drawn, int) else drawn.denoising_steps())
    except NotImplementedError:
        return
    except ValueError as error:
        raise ValueError(f"{who}: {error}") from None


def step_options(kind: type[TextImageAttributor], steps: int) -> dict[str, Any]:
    """Return the options by which a method looks at this many steps: none for one that looks at
    none by itself."""
    return {"steps": steps} if "steps" in options_of(kind) else {}


def _step_names(name: str, steps: Steps) -> tuple[str, str]:
    if steps is None:
        return f"{name}-all-steps", f"{name} (all steps)"
    if isinstance(steps, int):
        return f"{name}-{steps}-steps", f"{name} ({steps} steps)"
    numbers = [str(step) for step in steps]
    return f"{name}-steps-{'-'.join(numbers)}", f"{name} (steps {', '.join(numbers)})"
