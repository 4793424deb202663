"""What README and docs/ say is so: links, commands, Python, the table of methods, figures."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from wordlight.attribution import registry
from wordlight.comparisons.cli.main import build_parser

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
CONTRIBUTING = (ROOT / "docs" / "contributing.md").read_text("utf-8")
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def markdown_files() -> list[Path]:
    skipped = (".venv", "out", "runs", "node_modules")
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*.md"))
    return sorted(p for p in found if p.parts[0] not in skipped and p.parts[0] != "src")


PAGES = [path for path in markdown_files() if path.parts[0] in ("README.md", "docs")]


def test_every_page_is_looked_at() -> None:
    assert {"README.md", "docs/index.md", "docs/methods/daam.md"} <= set(map(str, PAGES))


@cache
def anchors(file: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    text = _FENCED.sub("", file.read_text("utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", markdown_files(), ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    text = _FENCED.sub("", (ROOT / page).read_text("utf-8"))
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]*)\)", text):
        place, _, anchor = target.partition("#")
        file = ROOT / page.parent / place if place else ROOT / page
        assert file.exists(), f"{page} links to {target}"
        if anchor and file.suffix == ".md":
            wanted = {re.sub("-+", "-", one).strip("-") for one in anchors(file)}
            assert anchor in anchors(file) | wanted, f"{page} links to {target}"
    here = "https://raw.githubusercontent.com/wordlight/wordlight/main/"
    for picture in re.findall(rf"\]\({re.escape(here)}([^)]*)\)", text):
        assert (ROOT / picture).is_file(), f"{page} shows {picture}"


def command_lines(page: Path) -> Iterator[list[str]]:
    """The arguments of every `wordlight` in a page's blocks, without what a shell does with it."""
    text = (ROOT / page).read_text("utf-8")
    blocks = [body for kind, body in _FENCED.findall(text) if kind == "sh"]
    blocks += re.findall(r"(?:^ {4}.*\n)+", _FENCED.sub("", text), re.MULTILINE)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        if line.strip().startswith("wordlight "):
            words = shlex.split(line, comments=True)
            ends = [i for i, word in enumerate(words) if word in (">", "|", "&&", ";")]
            yield words[1 : ends[0] if ends else None]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_are_understood(page: Path) -> None:
    for arguments in command_lines(page):
        build_parser().parse_args(arguments)  # ends with a line that says what it doesn't know


def test_commands_were_found() -> None:
    assert [line[0] for line in command_lines(Path("README.md"))] == ["attribute", "compare"]
    assert len(list(command_lines(Path("docs/command-line.md")))) > 15


@pytest.mark.parametrize(
    "page", ["README.md", "docs/maps.md", pytest.param("docs/tracing.md", marks=pytest.mark.slow)]
)
def test_the_python_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: Any) -> None:
    import torch
    from diffusers import StableDiffusionPipeline

    from wordlight.backends.embedded import EMBEDDED

    monkeypatch.chdir(tmp_path)
    pipe = StableDiffusionPipeline.from_pretrained(EMBEDDED["scenes"], dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)

    def compel(text: str) -> Any:
        """Embeddings of the words without their mark-up, in the place of Compel's."""
        words = re.sub(r"\((\w+)\)[\d.]+", r"\1", text)
        return pipe.encode_prompt(words, "cpu", 1, False)[0]

    names: dict[str, Any] = {"pipe": pipe, "compel": compel}
    blocks = [b for k, b in _FENCED.findall((ROOT / page).read_text("utf-8")) if k == "python"]
    for block in blocks:
        small = block.replace("_steps=30", "_steps=3").replace("n_steps=8", "n_steps=2")
        exec(compile(small, page, "exec"), names)
    assert len(blocks) >= 2
    if page == "README.md":
        assert {"dog.png", "maps.html", "maps.pdf"} <= {p.name for p in tmp_path.iterdir()}
        assert len(blocks[0].splitlines()) <= 11  # ten, and a blank one
        assert names["mask"].shape == (64, 64)


@pytest.mark.parametrize("model", ["scenes/model", "things/model", "things/model-dit"])
def test_the_python_of_a_models_card_runs(model: str, monkeypatch: Any) -> None:
    monkeypatch.chdir(ROOT)
    card = (ROOT / "backends" / model / "README.md").read_text("utf-8")
    (block,) = [body for kind, body in _FENCED.findall(card) if kind == "python"]
    names: dict[str, Any] = {}
    exec(compile(block.replace("steps=20", "steps=1"), "README.md", "exec"), names)
    assert names["image"].size == (64, 64)


def test_the_readme_lists_every_method_with_the_question_of_its_page() -> None:
    rows = dict(re.findall(r"^\| \[`([\w-]+)`\]\(docs/methods/\1\.md\) \| (.*) \|$", README, re.M))
    wanted = {name for name, kind in registry.available().items() if kind.family != "control"}
    assert set(rows) == {name for name in wanted if kind_is_ours(name)}
    for name, question in rows.items():
        page = (ROOT / "docs" / "methods" / f"{name}.md").read_text("utf-8")
        assert f"\n**{question}**\n" in page, name
    count = re.search(r"any of ([\w-]+) attribution\s+methods", README)
    assert count is not None
    assert count[1] == {19: "nineteen", 20: "twenty", 21: "twenty-one"}[len(rows)]


def kind_is_ours(name: str) -> bool:
    return registry.available()[name].__module__.startswith("wordlight.")


def test_the_readmes_scores_are_the_leaderboards() -> None:
    page = (ROOT / "docs" / "leaderboard.md").read_text("utf-8")
    table = page.partition("<!-- many -->")[2].partition("<!-- /many -->")[0]
    scores = re.findall(r"^\| \[`([\w-]+)`\]\S*(?:,[^|]*)? \| \w+ \| ([\d.]+) ", table, re.M)
    best, score = scores[0]
    told = " ".join(README.split())
    assert f"`{best}` leads with a mIoU of {score}" in told
    assert f"`daam` has {dict(scores)['daam']}" in told


def test_every_figure_has_a_command() -> None:
    images = ROOT / "docs" / "images"
    for path in images.rglob("*.png"):
        name = path.relative_to(images.parent).as_posix()
        folder = f"{path.parent.relative_to(images.parent).as_posix()}/"
        assert f"`{name}`" in CONTRIBUTING or f"`{folder}`" in CONTRIBUTING, name


def test_every_target_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for page in [*PAGES, Path("RELEASING.md")]:
        for named in re.findall(r"`make ([a-z -]+)`", (ROOT / page).read_text("utf-8")):
            assert set(named.split()) <= targets, f"{page}: make {named}"
    ran = subprocess.run(["make", "-n", "figures"], cwd=ROOT, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr.decode()
