"""Prints the lowest versions that pyproject.toml allows, as constraints for pip; torch as it is
pinned in constraints.txt."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


def lowest_versions(project: dict[str, Any], pinned: str) -> Iterator[str]:
    """``name==version`` of each requirement of the package and of its extras for users."""
    extras = project["optional-dependencies"]
    users = [one for name, extra in extras.items() if name not in ("dev", "docs") for one in extra]
    for text in dict.fromkeys([*project["dependencies"], *users]):
        requirement = Requirement(text)
        if requirement.name == "torch":
            yield from re.findall(r"^torch==.*$", pinned, re.MULTILINE)
        else:
            (bound,) = (s.version for s in requirement.specifier if s.operator == ">=")
            yield f"{requirement.name}=={bound}"


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    print(*lowest_versions(project, (ROOT / "constraints.txt").read_text("utf-8")), sep="\n")
