"""A whole comparison described by a file: TOML or YAML, with the command line's words."""

from __future__ import annotations

import reprlib
import tomllib
from pathlib import Path
from typing import Any

import yaml

from wordlight.backends.arrays_file import write_atomically
from wordlight.backends.regular_files import read_regular
from wordlight.comparisons.runs.options import options_of
from wordlight.comparisons.runs.plan import Arguments, Plan

#: What a run writes beside its results, to be repeated from.
CONFIG = "run.yaml"
#: In bytes.
_LONGEST = 1_000_000


class ConfigError(ValueError):
    """A file doesn't describe a comparison."""


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases and repeated keys: of a few bytes the former make gigabytes, and of the
    latter only the last would be read."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ConfigError("it has aliases (*name), which aren't read here")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        found = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            raise ConfigError("it has a key twice")
        return found


def read_config(path: Path) -> dict[str, Any]:
    """Return the arguments of ``compare`` that a file gives, by name.

    Raises ConfigError for a file that can't be read or parsed, an unknown key, a value of another
    kind.
    """
    options = {one.key: one for one in options_of(Arguments)}
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
        raise ConfigError(f"{path} must hold keys with values: {', '.join(options)}")
    if unknown := [str(key) for key in found if key not in options]:
        raise ConfigError(
            f"{path} has no meaning for {', '.join(unknown)}; its keys can be {', '.join(options)}"
        )
    for key, value in found.items():
        kind = options[key].kind
        if not kind.accepts(value):
            raise ConfigError(f"{path}: {key} must be {kind.says}, not {reprlib.repr(value)}")
    return {options[key].name: options[key].kind.read(value) for key, value in found.items()}


def write_config(path: Path, plan: Plan) -> None:
    """Write the description of a plan whose models and methods are names, by atomic rename."""
    head = "# Repeat this run: wordlight compare --config FILE --out FOLDER\n"
    text = head + yaml.safe_dump(plan.written(), sort_keys=False, allow_unicode=True)
    write_atomically(path, text.encode())
