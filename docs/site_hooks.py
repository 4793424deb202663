"""Hooks of MkDocs: the live viewer, links into the repository, and the lists of the reference.

MkDocs calls these functions by their names.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

from wordlight.comparisons.cli.main import main as wordlight

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)\s#]+)((?:#[^)\s]*)?\))")
_COMMAND = re.compile(r"^```sh\nwordlight (attribute .*?)^```$", re.MULTILINE | re.DOTALL)
_EXPORTS = re.compile(r"^<!-- exports: ([\w.]+) -->$", re.MULTILINE)
#: Files under docs/ that are no part of the site.
_NOT_SERVED = {".py", ".toml"}


def on_config(config: Any) -> Any:
    """Put every page into the navigation: methods under Methods, others under More."""
    docs = Path(config.docs_dir)
    paths = (path for kind in ("*.md", "*.ipynb") for path in docs.rglob(kind))
    pages = sorted(path.relative_to(docs).as_posix() for path in paths)
    named = set(_pages(config.nav))
    rest = [page for page in pages if page not in named]
    (methods,) = (part["Methods"] for part in config.nav if "Methods" in part)
    methods += [page for page in rest if page.startswith("methods/")]
    if more := [page for page in rest if not page.startswith("methods/")]:
        config.nav.append({"More": more})
    return config


def _pages(nav: Any) -> Iterator[str]:
    """The pages of a navigation, however deep."""
    if isinstance(nav, str):
        yield nav
        return
    for part in nav.values() if isinstance(nav, dict) else nav:
        yield from _pages(part)


def on_files(files: Any, config: Any) -> Any:
    """Add ``viewer.html``, which the start page shows, by the command that the start page names."""
    start = (Path(config.docs_dir) / "index.md").read_text("utf-8")
    files.append(File.generated(config, "viewer.html", content=live_viewer(start)))
    return files


def live_viewer(start: str) -> str:
    """The page that the first `wordlight attribute` of a page of Markdown writes.

    Raises PluginError where the command isn't there, has no ``-o``, or fails.
    """
    command = _COMMAND.search(start)
    arguments = shlex.split(command[1].replace("\\\n", " ")) if command else []
    if "-o" not in arguments:
        raise PluginError("index.md has no `wordlight attribute ... -o FOLDER` in a block of sh")
    with tempfile.TemporaryDirectory() as folder:
        arguments[arguments.index("-o") + 1] = folder
        with contextlib.redirect_stdout(io.StringIO()):
            status = wordlight([*arguments, "--quiet"])
        if status:
            raise PluginError(f"the command of index.md ended with status {status}")
        return (Path(folder) / "viewer.html").read_text("utf-8")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Point links that lead out of docs/ to the repository, and list what a package exports.

    Raises PluginError for a link to a file that isn't there.
    """
    folder = Path(config.docs_dir) / Path(page.file.src_uri).parent

    def linked(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / match[2]))
        served = target.is_relative_to(config.docs_dir) and target.suffix not in _NOT_SERVED
        if served or not target.is_relative_to(ROOT):
            return match[0]
        if not target.exists():
            raise PluginError(f"{page.file.src_uri} links to {match[2]}, which isn't there")
        kind = "tree" if target.is_dir() else "blob"
        place = f"{config.repo_url.rstrip('/')}/{kind}/main/{target.relative_to(ROOT).as_posix()}"
        return f"{match[1]}{place}{match[3]}"

    def listed(match: re.Match[str]) -> str:
        return "\n\n".join(f"::: {match[1]}.{name}" for name in exports(match[1]))

    return _EXPORTS.sub(listed, _LINK.sub(linked, markdown))


def exports(package: str) -> list[str]:
    """The names that a package's ``__init__.py`` gives away: imported as themselves.

    >>> exports("wordlight")
    ['compare', 'load', 'trace']
    """
    file = ROOT / "src" / Path(*package.split(".")) / "__init__.py"
    imports = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.ImportFrom)]
    names = {a.name for node in imports for a in node.names if a.asname == a.name}
    return sorted(names, key=str.lower)
