"""Looks at what would be published; argument: a folder with one sdist and one wheel.

Prints every fault, and ends with status 1 where there is one.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from email import message_from_string
from email.message import Message
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("attribution", "backends", "comparisons")
#: What tests and users of the sdist need beside the package.
IN_SDIST = (
    "CHANGELOG.md CITATION.cff LICENSE Makefile README.md RELEASING.md constraints.txt mkdocs.yml "
    "pyproject.toml docs/index.md examples/wordlight-banzhaf/pyproject.toml tests/conftest.py"
).split()
#: Files that no Python module is, without which the package doesn't work.
DATA = ("py.typed", "attribution/viewer/viewer.js", "backends/scenes/model/model_index.json")
NOT_PUBLISHED = re.compile(r"^(\.venv|\.git|out|runs)/|(^|/)__pycache__/|\.pyc$|\.egg-link$")
#: Index pages refuse files of 100 MB; ours should stay well below.
MOST_MB = 60
SAMPLE_OF_TESTS = ("tests/attribution/test_words.py", "tests/packaging/test_metadata.py")


def faults(folder: Path) -> Iterator[str]:
    """Everything that is wrong with a release."""
    (wheel,), (sdist,) = list(folder.glob("*.whl")), list(folder.glob("*.tar.gz"))
    in_wheel = zipfile.ZipFile(wheel).namelist()
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
        top = f"{sdist.name.removesuffix('.tar.gz')}/"
        in_sdist = [member.name.removeprefix(top) for member in members if member.isfile()]
        links = [member.name for member in members if member.issym() or member.islnk()]
    if links:
        yield f"the sdist has links, which Windows can't unpack: {links[:3]}"
    metadata = message_from_string(_read(wheel, in_wheel, "METADATA"))
    yield from _versions(metadata, wheel, sdist)
    yield from _metadata(metadata)
    yield from _contents(in_wheel, in_sdist)
    for file in (wheel, sdist):
        if (size := file.stat().st_size / 1e6) > MOST_MB:
            yield f"{file.name} has {size:.0f} MB, over {MOST_MB}"
    yield from _tests_of(sdist, top)


def _read(wheel: Path, names: list[str], name: str) -> str:
    (found,) = [n for n in names if PurePosixPath(n).match(f"*.dist-info/{name}")]
    return zipfile.ZipFile(wheel).read(found).decode()


def _versions(metadata: Message, wheel: Path, sdist: Path) -> Iterator[str]:
    version = str(metadata["Version"])
    init = (ROOT / "src/wordlight/__init__.py").read_text("utf-8")
    cited = (ROOT / "CITATION.cff").read_text("utf-8")
    if f'__version__ = "{version}"' not in init:
        yield f"__version__ isn't {version}"
    if f"\nversion: {version}\n" not in cited:
        yield f"CITATION.cff isn't of {version}"
    for file in (wheel, sdist):
        if f"-{version}" not in file.name:
            yield f"{file.name} isn't of {version}"


def left_to_do(version: str) -> Iterator[str]:
    """What only the person who releases can decide."""
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE):
        yield f"CHANGELOG.md has no dated entry for {version}: rename [Unreleased] on the day"


def _metadata(metadata: Message) -> Iterator[str]:
    wanted = {
        "License-Expression": "Apache-2.0",
        "Requires-Python": ">=3.11",
        "Description-Content-Type": "text/markdown",
    }
    for key, value in wanted.items():
        if metadata[key] != value:
            yield f"{key} is {metadata[key]!r}, not {value!r}"
    urls = {url.split(",")[0] for url in metadata.get_all("Project-URL", [])}
    if missing := {"Homepage", "Documentation", "Changelog", "Issues"} - urls:
        yield f"no project URL for {', '.join(sorted(missing))}"
    if "Typing :: Typed" not in metadata.get_all("Classifier", []):
        yield "the classifiers don't say that it is typed"
    description = str(metadata.get_payload())
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", description):
        place = picture.removeprefix("https://raw.githubusercontent.com/wordlight/wordlight/main/")
        if place == picture:
            yield f"README's picture {picture} has no absolute address: an index can't show it"
        elif not (ROOT / place).is_file():
            yield f"README shows {place}, which isn't there"


def _contents(in_wheel: list[str], in_sdist: list[str]) -> Iterator[str]:
    modules = {p.relative_to(ROOT).as_posix() for r in ROOMS for p in (ROOT / r).rglob("*.py")}
    for what, names, prefix in (("wheel", in_wheel, ""), ("sdist", in_sdist, "src/")):
        wanted = {f"{prefix}wordlight/{name}" for name in (*modules, *DATA)}
        if missing := wanted - set(names):
            yield f"the {what} lacks {', '.join(sorted(missing)[:5])}"
        if stray := [name for name in names if NOT_PUBLISHED.search(name)]:
            yield f"the {what} has {', '.join(stray[:5])}"
    if missing := set(IN_SDIST) - set(in_sdist):
        yield f"the sdist lacks {', '.join(sorted(missing))}"
    if stray := [name for name in in_wheel if not name.startswith("wordlight")]:
        yield f"the wheel has {', '.join(stray[:5])} beside the package"


def _tests_of(sdist: Path, top: str) -> Iterator[str]:
    """A few tests, from the sdist unpacked."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        done = subprocess.run(
            # In the sdist the rooms themselves lie in src/, without links.
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                *("-k", "not at_the_root", *SAMPLE_OF_TESTS),
            ],
            cwd=Path(folder) / top,
            env={"PYTHONPATH": "src", "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        yield f"tests of the unpacked sdist fail:\n{done.stdout[-2000:]}"


def main() -> int:
    """Print the faults, and what is left to do by hand."""
    folder = Path(sys.argv[1])
    found = list(faults(folder))
    (wheel,) = folder.glob("*.whl")
    todo = list(left_to_do(wheel.name.split("-")[1]))
    for kind, lines in (("fault", found), ("left to do", todo)):
        for line in lines:
            print(f"- {kind}: {line}")
    if found:
        print(f"{len(found)} faults: not ready for a release")
    else:
        print("ready but for what is left to do" if todo else "ready")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
