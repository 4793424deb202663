"""docs/api.md lists exactly what the packages export."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
spec = importlib.util.spec_from_file_location("make_api", DOCS / "make_api.py")
assert spec is not None
assert spec.loader is not None
make_api = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_api)


@pytest.mark.parametrize("package", make_api.PACKAGES)
def test_the_page_lists_what_a_package_exports(package: str) -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    section = page.split(f"## `{package}`\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == make_api.public(package)
