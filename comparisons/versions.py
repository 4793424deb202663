"""Which releases a result was made with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

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
