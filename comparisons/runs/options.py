"""Options that are said once: a field is a Python argument, a flag, and a key of a run file."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from inspect import signature
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar, dataclass_transform

from wordlight.backends.backend import Backend
from wordlight.comparisons.metrics.registry import parse as parse_metrics

#: More images than this can't be listed.
MOST_IMAGES = 1_000_000


def whole_number(least: int, most: float = math.inf) -> Callable[[str], int]:
    """A type for argparse: a whole number, ``least`` or more, up to ``most``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"must be {least} or more, not {value}")
        if value > most:
            raise argparse.ArgumentTypeError(f"must be {most} at most, not {value}")
        return value

    return parse


def method_options(text: str) -> tuple[str, dict[str, Any]]:
    """``NAME,OPTION=VALUE,...`` apart; raises ValueError.

    >>> method_options("integrated-gradients,n_steps=16,wrt=tokens")
    ('integrated-gradients', {'n_steps': 16, 'wrt': 'tokens'})
    """
    name, *parts = text.split(",")
    found: dict[str, Any] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not (name and key and equals and value):
            raise ValueError(f"a method is NAME or NAME,OPTION=VALUE,..., not {text!r}")
        if key in found:
            raise ValueError(f"{text!r} says {key} twice")
        try:
            found[key] = json.loads(value)
        except json.JSONDecodeError:
            found[key] = value
    return name, found


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Kind:
    """The values that an option takes, typed and in a file.

    Attributes:
        says: the rule for a file's value, such as "a whole number, 1 or more".
        holds: whether a file's value is that.
        flag: arguments of ``argparse``'s ``add_argument``.
        typed: turns what ``argparse`` gathered into a file's value; raises ValueError.
        read, write: turn a file's value into the field's, and back; None is left out of files.
        strict: whether the values that Python passes are checked by ``accepts`` too.
    """

    says: str
    accepts: Callable[[Any], bool]
    flag: Mapping[str, Any] = field(default_factory=dict)
    typed: Callable[[Any], Any] = _as_it_is
    read: Callable[[Any], Any] = _as_it_is
    write: Callable[[Any], Any] = _as_it_is
    strict: bool = False


def whole(least: int, most: float = math.inf) -> Kind:
    """Return the kind of whole numbers from ``least`` to ``most``."""

    def accepts(value: Any) -> bool:
        known = isinstance(value, Integral) and not isinstance(value, bool)
        return known and least <= int(value) <= most

    says = f"a whole number, {least} or more"
    if not math.isinf(most):
        says = f"a whole number from {least} to {most}"
    return Kind(says, accepts, {"type": whole_number(least, most)}, strict=True)


def number(least: float = 0.0, most: float = math.inf) -> Kind:
    """Numbers from ``least`` to ``most``."""

    def accepts(value: Any) -> bool:
        known = isinstance(value, Real) and not isinstance(value, bool)
        return known and least <= value <= most and math.isfinite(value)

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
        return value

    bounds = f"{least:g} or more" if math.isinf(most) else f"from {least:g} to {most:g}"
    return Kind(f"a number, {bounds}", accepts, {"type": parse}, strict=True)


def one_of(*names: str) -> Kind:
    """One of some texts."""
    *others, last = map(repr, names)
    says = f"{', '.join(others)} or {last}"
    return Kind(says, lambda value: value in names, {"choices": names})


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_texts(value: Any) -> bool:
    return _is_text(value) or (
        isinstance(value, list) and bool(value) and all(map(_is_text, value))
    )


def _names(key: str) -> Callable[[Any], bool]:
    def is_name(one: Any) -> bool:
        return _is_text(one) or (isinstance(one, Mapping) and _is_text(one.get(key)))

    return lambda value: isinstance(value, list) and all(map(is_name, value))


def plain(value: Any) -> Any:
    """Mappings and sequences as dicts and lists, for files."""
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def _method(text: str) -> str | dict[str, Any]:
    name, options = method_options(text)
    return {"method": name, **options} if options else name


def table(flag: str, what: str, of: str) -> Kind:
    """Texts by name: ``NAME=VALUE``, repeatable."""

    def typed(given: Sequence[str]) -> dict[str, str]:
        named: dict[str, str] = {}
        for text in given:
            name, equals, value = text.partition("=")
            if not (name and equals and value):
                raise ValueError(f"{flag} takes {what}, not {text!r}")
            if name in named:
                raise ValueError(f"{flag} names {name!r} twice")
            named[name] = value
        return named

    def accepts(value: Any) -> bool:
        return isinstance(value, Mapping) and all(
            _is_text(k) and _is_text(v) for k, v in value.items()
        )

    flags = {"action": "append", "metavar": what}
    return Kind(
        f"a table of {of} by name", accepts, flags, typed, write=lambda value: dict(value) or None
    )


TEXT = Kind("text", _is_text, write=lambda value: None if value is None else str(value))
TEXTS = Kind("text, or a list of texts", _is_texts, {"action": "append"}, write=plain)
PATH = Kind("text", _is_text, {"type": Path})
SWITCH = Kind(
    "true or false",
    lambda value: isinstance(value, bool),
    {"action": "store_true"},
    write=lambda value: value or None,
)
METHODS = Kind(
    "a list of names, or of tables with a name as 'method' and the method's options",
    _names("method"),
    {"action": "append", "metavar": "NAME"},
    lambda given: [_method(text) for text in given],
    write=plain,
)
METRICS = Kind(
    "a list of names, or of tables with a name as 'metric' and the metric's options",
    _names("metric"),
    {"metavar": "NAME,..."},
    parse_metrics,
    write=plain,
)


@dataclass(frozen=True)
class Option:
    """A field as an option.

    Attributes:
        name: the field's, and the Python argument's.
        help: its text in the command line's help.
        flags: as they are typed.
        key: in a run file.
        identity: whether its value is written among a run's settings, which tell it from others.
    """

    name: str
    kind: Kind
    help: str
    default: Any
    flags: tuple[str, ...]
    key: str
    identity: bool
    metavar: str | None


def option(
    kind: Kind,
    help: str,
    *,
    default: Any = dataclasses.MISSING,
    default_factory: Any = dataclasses.MISSING,
    flags: tuple[str, ...] = (),
    key: str = "",
    metavar: str | None = None,
    identity: bool = False,
    kw_only: bool = True,
) -> Any:
    """A field of an ``options`` class; see ``Option``. Flag and key are the field's name unless
    others are given."""
    said = {"kind": kind, "help": help, "flags": flags, "key": key}
    return field(
        default=default,
        default_factory=default_factory,
        kw_only=kw_only,
        metadata={**said, "metavar": metavar, "identity": identity},
    )


_Class = TypeVar("_Class")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(option,))
def options(cls: type[_Class]) -> type[_Class]:
    """Make a class of options: a frozen dataclass."""
    return dataclass(frozen=True, eq=False, kw_only=True)(cls)


def options_of(kind: type) -> tuple[Option, ...]:
    """The options of a class, in order."""
    return tuple(_option(one) for one in dataclasses.fields(kind) if "kind" in one.metadata)


def _option(one: dataclasses.Field[Any]) -> Option:
    said, dashed = one.metadata, one.name.replace("_", "-")
    return Option(
        one.name,
        said["kind"],
        said["help"],
        one.default if one.default_factory is dataclasses.MISSING else one.default_factory(),
        said["flags"] or (f"--{dashed}",),
        said["key"] or dashed,
        said["identity"],
        said["metavar"],
    )


_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")
_P = ParamSpec("_P")


def called_with(
    kind: Callable[_P, _Asked],
) -> Callable[[Callable[[_Asked], _Answer]], Callable[_P, _Answer]]:
    """Have a function of one object called with the object's arguments in its place."""

    def decorate(function: Callable[[_Asked], _Answer]) -> Callable[_P, _Answer]:
        takes = signature(kind).replace(return_annotation=function.__annotations__["return"])

        @wraps(function)
        def called(*arguments: _P.args, **named: _P.kwargs) -> _Answer:
            try:
                takes.bind(*arguments, **named)
            except TypeError as error:
                # Python's own would name the class.
                raise TypeError(f"{function.__name__}(): {error}") from None
            return function(kind(*arguments, **named))

        called.__signature__ = takes  # type: ignore[attr-defined]
        return called

    return decorate


@options
class Options:
    """The base class of options."""

    def __post_init__(self) -> None:
        for one in options_of(type(self)):
            value = getattr(self, one.name)
            if one.kind.strict and value is not None and not one.kind.accepts(value):
                raise ValueError(f"{one.name} must be {one.kind.says}, not {value!r}")

    @classmethod
    def typed(
        cls, arguments: argparse.Namespace, only: Collection[str] | None = None
    ) -> dict[str, Any]:
        """Return what a command line gave, of all fields or some; raises ValueError."""
        given = vars(arguments)
        return {
            one.name: one.kind.read(one.kind.typed(given[one.name]))
            for one in options_of(cls)
            if one.name in given and (only is None or one.name in only)
        }

    def identity(self) -> dict[str, Any]:
        """The values that tell a run from others, by their keys in a file."""
        every = {one.key: getattr(self, one.name) for one in options_of(type(self)) if one.identity}
        return {key: value for key, value in every.items() if value is not None}


@options
class ModelOptions(Options):
    """The choice of a model, and of how it draws."""

    model: Any = option(
        TEXT,
        "an embedded model (scenes, the default, things or things-dit), a folder in diffusers' "
        "format, or a Hub id (safetensors only)",
        default="scenes",
        metavar="MODEL",
        kw_only=False,
    )
    framework: Any = option(
        one_of("torch", "flax"),
        "the framework that runs the model (default: torch where it is installed, else flax)",
        default=None,
    )
    device: str | None = option(
        TEXT,
        "where the model runs: cpu, cuda, cuda:1, ... (default: a GPU where there is one)",
        default=None,
        metavar="DEVICE",
    )
    dtype: str | None = option(
        one_of("float32", "float64", "float16", "bfloat16"),
        "the floating-point type of the model (default: that of its files; flax has float32 and "
        "bfloat16)",
        default=None,
    )
    precision: str | None = option(
        one_of("highest", "high"),
        "the precision of float32 products on a GPU: exact, or TF32, faster and off by 1e-3 "
        "(default: PyTorch's own setting; flax: exact)",
        default=None,
        identity=True,
    )
    scheduler: str | None = option(
        one_of("ddim", "euler"),
        "the scheduler, with the checkpoint's noise schedule (default: the checkpoint's own; flax "
        "has these alone, so it is needed there for others, such as Stable Diffusion 1.x's PNDM)",
        default=None,
        identity=True,
    )
    sampling_steps: int | None = option(
        whole(1),
        "the number of denoising steps an image (default: the model's own)",
        default=None,
        metavar="N",
        identity=True,
    )
    guidance: float | None = option(
        number(),
        "the scale of classifier-free guidance (default: the model's own)",
        default=None,
        metavar="SCALE",
        identity=True,
    )

    def load(self, framework: str | None = None) -> Backend:
        """The model, on the framework that was asked for or on another; raises ModelLoadError."""
        # Frameworks are imported when a model is loaded, and not before.
        from wordlight.backends.loading import load

        backend = load(
            self.model,
            framework=framework or self.framework,
            device=self.device,
            dtype=self.dtype,
            scheduler=self.scheduler,
            **({} if self.precision is None else {"precision": self.precision}),
        )
        backend.draw_with(steps=self.sampling_steps, guidance_scale=self.guidance)
        return backend

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Self:
        """Return the options of a command line."""
        return cls(**cls.typed(arguments))
