"""Writes ``docs/api.md``, the names that the packages export: python docs/make_api.py"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

PACKAGES = (
    "wordlight",
    "wordlight.attribution",
    "wordlight.attribution.testing",
    "wordlight.backends",
    "wordlight.backends.testing",
    "wordlight.comparisons",
    "wordlight.comparisons.datasets.testing",
    "wordlight.comparisons.metrics.testing",
)
HEAD = """\
# What is public

These names are kept from one release to the next, or the CHANGELOG says what becomes of them.
What is in no list here is internal, wherever it lies. `python docs/make_api.py` writes this page.
"""


def public(package: str) -> list[str]:
    """The names that a package exports."""
    module = importlib.import_module(package)
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    own = package.startswith("wordlight.comparisons.")
    named = {name: getattr(module, name) for name in dir(module)}
    return sorted(
        name
        for name, value in named.items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        # A module's own functions; a package's, those that it takes from its modules.
        and (value.__module__ == package if own else value.__module__.startswith("wordlight."))
    )


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for package in PACKAGES:
        rows = "\n".join(_row(package, name) for name in public(package))
        parts.append(f"## `{package}`\n\n| name | |\n|---|---|\n{rows}\n")
    return "\n".join(parts)


def _row(package: str, name: str) -> str:
    value = getattr(importlib.import_module(package), name)
    text = "the release" if isinstance(value, str) else inspect.getdoc(value) or ""
    first = " ".join(text.split("\n\n")[0].split()).replace("|", "\\|").replace("``", "`")
    return f"| `{name}` | {first} |"


if __name__ == "__main__":
    (Path(__file__).parent / "api.md").write_text(page(), encoding="utf-8")
