"""Entry points are read once, and again when a package has come."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from wordlight.backends.installed import entry_points


def install(folder: Path, package: str, *names: str) -> None:
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {package}:{name}" for name in names]
    (info / "entry_points.txt").write_text("\n".join(["[some.group]", *lines, ""]))


def test_a_package_that_is_installed_later_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "one", "second", "first")
    assert entry_points("some.group") == []
    monkeypatch.syspath_prepend(tmp_path)
    assert [point.name for point in entry_points("some.group")] == ["first", "second"]
    read = []
    of_all = metadata.entry_points
    monkeypatch.setattr(metadata, "entry_points", lambda: read.append(1) or of_all())
    assert [point.name for point in entry_points("some.group")] == ["first", "second"]
    assert not read
    install(tmp_path, "other", "zeroth")
    assert len(entry_points("some.group")) == 3
    assert read == [1]
