"""The page of what each family can do, held against the code."""

from pathlib import Path

import pytest

from wordlight.backends.known_families import known_families, matrix_table
from wordlight.backends.torch.capabilities import CELLS, matrix
from wordlight.backends.torch.tiny import TINY

PAGE = Path(__file__).parents[3] / "docs/capabilities.md"


def rows_of(table):
    cells = [
        [c.strip() for c in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    reasons = dict(
        line.split(". ", 1) for line in table.splitlines() if line[:1].isdigit() and ". " in line
    )
    head, _, *rows = cells
    spelled = [[c if c[:1] != "–" else reasons[c[2:]] for c in row[1:]] for row in rows]
    return {
        row[0]: dict(zip(head[1:], own, strict=True))
        for row, own in zip(rows, spelled, strict=True)
    }


def table_of_page():
    text = PAGE.read_text(encoding="utf-8")
    return text.partition("<!-- matrix: begin -->")[2].partition("<!-- matrix: end -->")[0]


def test_the_page_has_every_tiny_model_and_every_column():
    rows = rows_of(table_of_page())
    assert list(rows) == list(TINY)
    assert all(list(row) == list(CELLS) for row in rows.values())


@pytest.mark.parametrize("family", ["sdxl", "sd3", "sana", "cogview-4", "wan"])
def test_the_page_says_what_a_model_does(family):
    assert rows_of(table_of_page())[family] == matrix([family])[family]


@pytest.mark.slow
def test_the_page_says_what_every_model_does():
    assert rows_of(table_of_page()) == matrix()


def test_reasons_are_numbered_below_the_table():
    table = matrix_table({"a": {"x": "✓", "y": "no"}, "b": {"x": "no", "y": "other"}})
    assert "| a | ✓ | – 1 |" in table
    assert "| b | – 1 | – 2 |" in table
    assert table.endswith("1. no\n2. other")


def test_families_say_what_they_lack():
    found = {row["name"]: row for row in known_families()}
    assert found["Kandinsky 5"]["denoisers"] == ["Kandinsky5Transformer3DModel"]
    assert "denoise_jvp" in found["CogView 4"]["lacks"]
