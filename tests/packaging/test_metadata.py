"""What the package says of itself, in its several places."""

import importlib.metadata
import os
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import wordlight
from wordlight.comparisons.metrics.metric import Metric

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = {
    name: Version(version)
    for name, version in re.findall(
        r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE
    )
}
ENTRY_POINTS = [
    pytest.param(group, name, id=f"{group}:{name}")
    for group, entries in PROJECT["entry-points"].items()
    for name in entries
]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_one_version_everywhere():
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None
    assert cited[1] == wordlight.__version__ == importlib.metadata.version("wordlight")


@pytest.mark.parametrize(("group", "name"), ENTRY_POINTS)
def test_every_entry_point_leads_to_what_its_group_holds(group, name):
    (point,) = importlib.metadata.entry_points(group=group, name=name)
    loaded = point.load()
    if group == "wordlight.metrics":
        records = loaded if isinstance(loaded, tuple) else (loaded,)
        assert all(isinstance(record, Metric) for record in records)
    else:
        assert isinstance(loaded, type)


def test_the_command_is_there():
    (point,) = importlib.metadata.entry_points(group="console_scripts", name="wordlight")
    assert callable(point.load())


def test_the_tested_versions_are_within_the_ranges():
    extras = PROJECT["optional-dependencies"]
    requirements = [*PROJECT["dependencies"], *(r for extra in extras.values() for r in extra)]
    pinned = {canonical(name): version for name, version in CONSTRAINTS.items()}
    for text in requirements:
        requirement = Requirement(text)
        if requirement.name != "wordlight":
            version = pinned[canonical(requirement.name)]
            assert requirement.specifier.contains(version), (text, version)


def test_the_tested_versions_are_the_ones_that_run():
    for name in ("numpy", "torch", "diffusers", "transformers", "xarray", "captum"):
        # A local label such as +cpu says how it was built, not what it is.
        running = Version(importlib.metadata.version(name))
        assert Version(running.public) == CONSTRAINTS[name]


@pytest.mark.parametrize("room", ["attribution", "backends", "comparisons"])
def test_the_rooms_are_folders_at_the_root(room):
    link = ROOT / "src" / "wordlight" / room
    assert (ROOT / room).is_dir()
    assert not (ROOT / room).is_symlink()
    # A relative link: an absolute one leads nowhere in another checkout.
    assert os.readlink(link) == f"../../{room}"
