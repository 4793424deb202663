"""Every method has its page, and the command that writes numbers into the pages writes them."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import wordlight.attribution
from wordlight.attribution import TextImageAttributor
from wordlight.attribution.registry import available

DOCS = Path(__file__).resolve().parents[2] / "docs"
METHODS = {
    name: kind
    for name, kind in available().items()
    if kind.family != "control" and kind.__module__.startswith("wordlight.")
}
#: As the command line knows them.
NAMES = (
    "daam self-attention-refined relative-attention attention-chains gramcol goca head-selection "
    "concept-attention open-vocabulary attention-x-gradient saliency input-x-gradient "
    "integrated-gradients gradient-shap deeplift occlusion noise-difference "
    "information-decomposition regeneration shapley kernel-shap"
).split()


def test_the_methods_are_there_by_name() -> None:
    assert set(NAMES) == set(METHODS)


def page_of(name: str) -> str:
    return (DOCS / "methods" / f"{name}.md").read_text("utf-8")


def row(page: str, title: str) -> str:
    found = re.search(rf"^\| {title} \| (.*) \|$", page, re.MULTILINE)
    assert found, f"no row {title!r}"
    return found[1]


@pytest.mark.parametrize("name", [*METHODS, "noise-tunnel"])
def test_a_page_says_what_one_asks(name: str) -> None:
    page = page_of(name)
    imported = re.fullmatch(r"`from wordlight.attribution import (\w+)`", row(page, "Python"))
    assert imported
    kind: type[TextImageAttributor] = getattr(wordlight.attribution, imported[1])
    assert kind.name == name
    # What it answers, in one sentence, right under the title.
    assert re.match(rf"# [^\n]+\n\n\*\*{re.escape(kind.question)}\*\*\n\n", page)
    for reference in re.findall(r"(?:arXiv|doi) [\d.]+[^\s,;]*", kind.paper):
        assert f"[{reference}]" in row(page, "paper")
    assert row(page, "cost at a step")
    assert len(page.partition("## When to use it\n\n")[2].partition("\n\n## ")[0]) > 80
    picture = f"../images/methods/{name}.png"
    # The pictures are of a model with a UNet.
    shown = f"![The word's map on three images]({picture})" in page
    assert shown == ("concept_attention" not in kind.needs)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page):
        assert (DOCS / "methods" / target).exists(), target


def test_the_readme_asks_the_methods_questions() -> None:
    page = (DOCS.parent / "README.md").read_text("utf-8")
    for name, kind in METHODS.items():
        assert f"| [`{name}`](docs/methods/{name}.md) | {kind.question} |" in page


@pytest.mark.parametrize("name", METHODS)
def test_a_page_has_the_methods_numbers(name: str) -> None:
    page, kind = page_of(name), METHODS[name]
    assert row(page, "command line").startswith(f"`wordlight attribute PROMPT --method {name}")
    assert re.search(
        r"<!-- scores -->\n\| mIoU@best.*\n\|.*\n\| .*\n(\n(Made with|Completeness error:) .*\n)?"
        "<!-- /scores -->",
        page,
    )
    assert f"[`{name}`]({name}.md)" in page_of("README")
    if kind.effort is not None:
        default = inspect.signature(kind).parameters[kind.effort].default
        cost = row(page, "cost at a step")
        assert f"`{kind.effort}`" in cost
        assert re.search(rf"\(default {default}\b", cost)


# The command


def measured(
    method: str, value: float, metric: str = "miou@best", low: float | None = None
) -> dict[str, Any]:
    high = None if low is None else 2 * value - low
    return {
        "method": method, "metric": metric, "mean": value, "low": low, "high": high, "n": 7
    }  # fmt: skip


def folders(tmp_path: Path, **changes: Any) -> list[str]:
    """A comparison, another one of regeneration, and a sanity study, as their commands write."""
    summary = {
        "n": 5,
        "seed": 0,
        "steps": [2, 8],
        "headline": [
            measured("daam", 0.5, low=0.4),
            measured("daam", 12.0, "forward-equivalents"),
            measured("shuffled-word.daam", 0.125),
            measured("occlusion", 0.75, low=0.7),
            measured("shapley", 0.3125),
            measured("shapley", 0.0125, "completeness-error"),
            measured("guidance-norm", 0.25),
            measured("uniform", 0.0625),
        ],
        "ceiling": {"miou@best": 0.9},
    }
    other = summary | {"headline": [measured("regeneration", 0.375)]} | changes
    cascades = [
        {
            "method": name,
            "depends_on_model": depends,
            "similarity": [{"mean": 1.0, "n": 9}, {"mean": last, "n": 9}],
        }
        for name, depends, last in (
            ("daam", True, 0.25),
            ("occlusion", False, 0.96875),
            ("uniform", False, 1.0),
        )
    ]
    for name, one in (("all", summary), ("regeneration", other)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(one))
        settings = {"budget": 240, "methods": {"shapley": {"n_samples": 3}, "daam": {}}}
        (tmp_path / name / "settings.json").write_text(json.dumps({"settings": settings}))
    (tmp_path / "sanity").mkdir()
    (tmp_path / "sanity" / "sanity.json").write_text(json.dumps(cascades))
    (tmp_path / "sanity" / "sanity.png").write_bytes(b"a picture")
    shutil.copytree(DOCS / "methods", tmp_path / "docs" / "methods")
    sanity = str(tmp_path / "sanity")
    return [str(tmp_path / "all"), str(tmp_path / "regeneration"), "--sanity", sanity]


def make(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(DOCS / "make_methods.py"), *arguments, "--scores-only"]
    docs = ["--docs", str(tmp_path / "docs")]
    return subprocess.run([*line, *docs], capture_output=True, text=True, check=False)


def test_the_command_writes_what_was_measured(tmp_path: Path) -> None:
    ran = make(tmp_path, *folders(tmp_path))
    assert ran.returncode == 0, ran.stderr
    pages = tmp_path / "docs" / "methods"
    daam = (pages / "daam.md").read_text("utf-8")
    assert (
        "| 0.500 [0.400, 0.600] | 0.125 | not measured | not measured | 12 | +0.25 |\n"
        "<!-- /scores -->" in daam
    )
    assert daam.startswith(page_of("daam").partition("<!-- scores -->")[0])
    assert (
        "\n\nMade with n_samples 3. Completeness error: the maps together miss or exceed 1.2% of "
        "the push.\n" in (pages / "shapley.md").read_text("utf-8")
    )
    readme = (pages / "README.md").read_text("utf-8")
    assert "[`shapley`](shapley.md), n_samples 3 |" in readme
    assert "over 9 words" in readme
    table = readme.partition("<!-- table -->\n")[2].partition("<!-- /table -->")[0].splitlines()
    assert [line.split("`")[1] for line in table[2:5]] == ["occlusion", "daam", "regeneration"]
    # Maps that a random model leaves as they were are marked.
    assert table[2].endswith("| +0.97 **does not depend on the model** |")
    assert table[3].endswith("| +0.25 |")
    assert table[4].endswith("| 0.375 | not measured | not measured | not measured |")
    assert len(table) == 2 + len(available_methods()) + 2
    assert "as much effort as 240 forward-equivalents" in table[-1]
    controls = (pages / "controls.md").read_text("utf-8")
    assert "| `uniform` | 0.062 | " in controls
    assert "+1.00 **does not depend on the model** |" in controls
    copied = tmp_path / "docs" / "images" / "methods" / "sanity.png"
    assert copied.read_bytes() == b"a picture"


def available_methods() -> list[str]:
    return [name for name, kind in available().items() if kind.family != "control"]


def test_a_score_of_other_images_says_of_how_many(tmp_path: Path) -> None:
    ran = make(tmp_path, *folders(tmp_path, n=6))
    assert ran.returncode == 0, ran.stderr
    page = (tmp_path / "docs" / "methods" / "regeneration.md").read_text("utf-8")
    assert "\n| 0.375, 6 images | not measured |" in page
    assert ", 6 images" not in (tmp_path / "docs" / "methods" / "daam.md").read_text("utf-8")


@pytest.mark.parametrize("changes", [{"seed": 1}, {"steps": [2, 9]}])
def test_comparisons_of_another_seed_or_steps_are_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    ran = make(tmp_path, *folders(tmp_path, **changes))
    assert ran.returncode == 2
    assert ran.stderr.endswith("of another seed or steps than the first one\n")
    assert (tmp_path / "docs" / "methods" / "daam.md").read_text("utf-8") == page_of("daam")
