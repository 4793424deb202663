"""What docs/extend.md shows is what works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from wordlight.attribution import NoiseTunnel
from wordlight.attribution.testing import attributor_checks, check_attributor
from wordlight.attribution.testing.model import ToyModel

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def run(source: str, names: dict[str, Any]) -> None:
    exec(compile(source, "docs/extend.md", "exec"), names)


def test_the_methods_of_the_page_pass() -> None:
    inclusion, text_share, attended_loss, _options, check, suite, _ = BLOCKS
    methods = inclusion, text_share, attended_loss
    assert max(len(block.splitlines()) for block in methods) < 40
    names: dict[str, Any] = {"__name__": "page"}
    for block in (*methods, check, suite):
        run(block, names)
    check_attributor(names["TextShare"])
    check_attributor(names["AttendedLoss"])
    for one in attributor_checks():
        names["test_conformance"](one)
    check_attributor(lambda backend: NoiseTunnel(names["Inclusion"](backend), nt_samples=2))


def test_the_check_of_backends_runs() -> None:
    run(BLOCKS[-1], {"backend": ToyModel()})


def test_the_page_lists_every_check() -> None:
    listed = re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE)
    assert [name for name in listed if "-" in name] == [c.name for c in attributor_checks()]


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
