"""A whole comparison described by a file: TOML or YAML, with the command line's words."""

from __future__ import annotations

import reprlib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from wordlight.backends.arrays_file import write_atomically
from wordlight.backends.regular_files import read_regular
from wordlight.comparisons.runs.plan import Plan, plain

#: What a run writes beside its results, to be repeated from.
CONFIG = "run.yaml"
#: In bytes.
_LONGEST = 1_000_000


class ConfigError(ValueError):
    """A file doesn't describe a comparison."""


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases: of a few bytes they make gigabytes, and a comparison needs none."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ConfigError("it has aliases (*name), which aren't read here")
        return super().compose_node(parent, index)


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


def _yes_or_no(value: Any) -> bool:
    return isinstance(value, bool)


def _frameworks(value: Any) -> bool:
    return _text(value) or (isinstance(value, list) and bool(value) and all(map(_text, value)))


def _named_by(key: str) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list)
        and all(_text(one) or (isinstance(one, Mapping) and _text(one.get(key))) for one in value)
    )


def _folders(value: Any) -> bool:
    return isinstance(value, Mapping) and all(_text(k) and _text(v) for k, v in value.items())


#: The keys, what their values are, and how that is checked.
KEYS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "model": ("text", _text),
    "framework": ("text, or a list of texts", _frameworks),
    "device": ("text", _text),
    "scheduler": ("'ddim' or 'euler'", lambda value: value in ("ddim", "euler")),
    "methods": (
        "a list of names, or of tables with a name as 'method' and the method's options",
        _named_by("method"),
    ),
    "metrics": (
        "a list of names, or of tables with a name as 'metric' and the metric's options",
        _named_by("metric"),
    ),
    "maps": ("a table of folders by name", _folders),
    "data": ("text", _text),
    "skip-malformed": ("true or false", _yes_or_no),
    "redraw": ("true or false", _yes_or_no),
    "masks": ("text", _text),
    "segmenters": ("a table of segmenters by name", _folders),
    "n": ("a whole number, 1 or more", _whole(1)),
    "calibration": ("a whole number, 1 or more", _whole(1)),
    "seed": ("a whole number, 0 or more", _whole(0)),
    "steps": ("a whole number, 1 or more", _whole(1)),
    "budget": ("a whole number, 1 or more", _whole(1)),
    "out": ("text", _text),
    "executor": ("'local' or 'ray'", lambda value: value in ("local", "ray")),
    "workers": ("a whole number, 1 or more", _whole(1)),
    "address": ("text", _text),
    "damaged": ("'stop' or 'recompute'", lambda value: value in ("stop", "recompute")),
}


def read_config(path: Path) -> dict[str, Any]:
    """Read a comparison's description: some of ``KEYS``, with their values.

    Raises ConfigError for a file that can't be read or parsed, an unknown key, a value of another
    kind.
    """
    try:
        text = read_regular(path, _LONGEST).decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} can't be read ({error})") from None
    try:
        if path.suffix == ".toml":
            found = tomllib.loads(text)
        elif path.suffix in (".yaml", ".yml"):
            found = yaml.load(text, _PlainLoader)
        else:
            raise ConfigError(f"{path} must end in .toml, .yaml or .yml")
    except RecursionError:
        raise ConfigError(f"{path} is malformed: it is nested too deep") from None
    except (ValueError, yaml.YAMLError) as error:
        # Also ValueError of YAML's dates and numbers.
        raise ConfigError(f"{path} is malformed: {' '.join(str(error).split())}"[:500]) from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} must hold keys with values: {', '.join(KEYS)}")
    if unknown := [str(key) for key in found if key not in KEYS]:
        raise ConfigError(
            f"{path} has no meaning for {', '.join(unknown)}; its keys can be {', '.join(KEYS)}"
        )
    for key, value in found.items():
        what, holds = KEYS[key]
        if not holds(value):
            raise ConfigError(f"{path}: {key} must be {what}, not {reprlib.repr(value)}")
    return found


def write_config(path: Path, plan: Plan) -> None:
    """Write the description of a plan whose models and methods are names, by atomic rename."""
    found: dict[str, Any] = {
        "model": plan.model,
        "framework": list(plan.frameworks),
        "device": plan.device,
        "scheduler": plan.scheduler,
        "methods": None if plan.methods is None else plain(plan.methods),
        "metrics": plain(plan.metrics),
        "maps": {name: str(Path(folder).resolve()) for name, folder in plan.maps.items()} or None,
        "data": str(plan.data),
        "skip-malformed": plan.on_error == "skip" or None,
        "redraw": plan.redraw or None,
        "masks": plan.masks,
        "segmenters": dict(plan.segmenters) or None,
        "n": plan.n,
        "calibration": plan.calibration,
        "seed": plan.seed,
        "steps": plan.steps,
        "budget": plan.budget,
    }
    known = {key: value for key, value in found.items() if value is not None}
    head = "# Repeat this run: wordlight compare --config FILE --out FOLDER\n"
    text = head + yaml.safe_dump(known, sort_keys=False, allow_unicode=True)
    write_atomically(path, text.encode())
