"""The releases that a result was made with, and that a method is of."""

from __future__ import annotations

import hashlib
import inspect
import platform
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from types import ModuleType

#: What a score can depend on; those that aren't installed are left out.
_PACKAGES = (
    "wordlight",
    "numpy",
    "scipy",
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


def source_digest(kinds: Iterable[type]) -> str:
    """A digest of the code that classes are made of, as far as it is of no installed release; ""
    where all of it is.

    Code of no release can be edited without its name or version changing: scripts, notebooks,
    modules beside them that they import, and packages that are installed to be edited. Of a module
    the whole file counts.
    """
    digest = hashlib.sha256()
    seen: set[str] = set()
    left = [base for kind in kinds for base in kind.__mro__ if _is_unreleased(base.__module__)]
    for base in left:
        module = sys.modules.get(base.__module__)
        file = getattr(module, "__file__", None)
        if module is None or file is None:
            # A notebook's cell, say.
            digest.update(_own_source(base).encode())
            continue
        for path in _files_of(module, seen):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16] if left else ""


def _files_of(module: ModuleType, seen: set[str]) -> Iterator[Path]:
    """The files of a module and of all that it imports, as far as they are of no release."""
    left = [module]
    while left:
        one = left.pop()
        file = getattr(one, "__file__", None)
        if one.__name__ in seen or file is None:
            continue
        seen.add(one.__name__)
        if Path(file).is_file():
            yield Path(file)
        for name in sorted(vars(one)):
            value = vars(one)[name]
            of = value.__name__ if isinstance(value, ModuleType) else _module_of(value)
            if of in sys.modules and _is_unreleased(of):
                left.append(sys.modules[of])


def _module_of(value: object) -> str:
    found = getattr(value, "__module__", None)
    return found if isinstance(found, str) else ""


def _own_source(kind: type) -> str:
    """A class's source, or where nobody kept that the code of its functions."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        functions = sorted(
            (name, one) for name, one in vars(kind).items() if inspect.isfunction(one)
        )
        codes = [(name, one.__code__.co_code, one.__code__.co_consts) for name, one in functions]
        return repr(codes)


def _is_unreleased(module: str) -> bool:
    """Return whether a module is neither Python's, nor this package's, nor installed as a release
    is: one that is installed to be edited lies where it is edited."""
    package = module.partition(".")[0]
    if package in sys.stdlib_module_names - {"__main__"} or package == "wordlight":
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is None or not {"site-packages", "dist-packages"} & set(Path(file).parts)
