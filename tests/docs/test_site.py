"""What the site needs: its navigation, links into the repository, lists of the reference."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mkdocs.exceptions import PluginError

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "docs"))
import site_hooks  # noqa: E402

CONFIG = SimpleNamespace(docs_dir=str(ROOT / "docs"), repo_url="https://example.org/w")


def rendered(markdown, page="methods/daam.md"):
    file = SimpleNamespace(src_uri=page)
    return site_hooks.on_page_markdown(markdown, SimpleNamespace(file=file), CONFIG, None)


def test_the_start_page_shows_what_its_command_writes():
    start = (ROOT / "docs" / "index.md").read_text("utf-8")
    assert 'src="viewer.html"' in start
    command = """
```sh
wordlight attribute --seed 3 --sampling-steps 2 --method daam -o out/look \\
    "a red <circle>"
```
"""
    page = site_hooks.live_viewer(command)
    assert page.startswith("<!DOCTYPE html>")
    assert "a red &lt;circle&gt;" in page
    for broken in ("no command", command.replace("-o out/look", ""), command.replace("daam", "x")):
        with pytest.raises(PluginError, match=r"index\.md"):
            site_hooks.live_viewer(broken)


def test_links_out_of_the_docs_lead_to_the_repository():
    told = rendered("[a](../../README.md#methods) [b](../../backends/scenes) [c](occlusion.md)")
    assert told == (
        "[a](https://example.org/w/blob/main/README.md#methods) "
        "[b](https://example.org/w/tree/main/backends/scenes) [c](occlusion.md)"
    )
    assert rendered("[d](make_findings.py)", "findings.md").startswith("[d](https://example.org")


def test_a_link_to_nothing_fails_the_build():
    with pytest.raises(PluginError, match=r"methods/daam.md links to \.\./\.\./nothing.py"):
        rendered("[a](../../nothing.py)")


def test_the_reference_lists_what_packages_export():
    told = rendered("<!-- exports: wordlight -->", "reference.md")
    assert told.split() == [
        *("::: wordlight.compare ::: wordlight.load ::: wordlight.trace".split()),
    ]
    assert "DAAM" in site_hooks.exports("wordlight.attribution")


def test_every_page_is_in_the_navigation(tmp_path):
    for name in ("index.md", "methods/README.md", "methods/daam.md", "new.md", "b/x.ipynb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    nav = [{"Start": "index.md"}, {"Methods": ["methods/README.md"]}]
    config = site_hooks.on_config(SimpleNamespace(docs_dir=str(tmp_path), nav=nav))
    assert config.nav == [
        {"Start": "index.md"},
        {"Methods": ["methods/README.md", "methods/daam.md"]},
        {"More": ["b/x.ipynb", "new.md"]},
    ]
