"""Which releases a result was made with, and a method is of."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version

#: What a score can depend on; those that aren't installed are left out.
_PACKAGES = (
    "wordlight",
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "diffusers",
    "transformers",
    "jax",
    "flax",
)


def installed_versions() -> dict[str, str]:
    """Releases by name: Python's, the system's and those of the packages that scores depend on."""
    found = {
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def releases_of(package: str) -> tuple[str, ...]:
    """The installed releases that have a top-level package, as ``"name version"``: none for code
    that isn't installed, several where they share a namespace.

    As they were when it was first asked: every installed file list is read for it.
    """
    names = sorted(set(packages_distributions().get(package, ())))
    return tuple(f"{name} {version(name)}" for name in names)
