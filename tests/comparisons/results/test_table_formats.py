"""Tables as text: what stands in a cell is read back as it was."""

from __future__ import annotations

import csv
import io

import pytest

from wordlight.comparisons.results.text_tables import (
    aligned,
    comma_separated,
    escape_latex,
    markdown_table,
    tabular,
)

LINES = [["method", "score"], ["one", "0.500 [0.1, 0.9]"], ["a longer one", "-"]]


def test_columns_are_in_line_and_extra_rows_apart():
    text = aligned(LINES, extra=1).splitlines()
    assert text[0] == "method                   score"
    assert text[2] == "one           0.500 [0.1, 0.9]"
    assert text[1] == text[3] == "------------  ----------------"
    assert len({len(line) for line in text}) == 1


def test_a_bar_in_a_cell_is_no_column():
    assert markdown_table([["a|b", "c"], ["1", "2"]]).splitlines() == [
        r"| a\|b | c |",
        "|---|---:|",
        "| 1 | 2 |",
    ]


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("mIoU@best [95 %]", r"mIoU@best [95 \%]"),
        ("a_b & c#d$", r"a\_b \& c\#d\$"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("x^2 ~ <y>", r"x\textasciicircum{}2 \textasciitilde{} \textless{}y\textgreater{}"),
        ("[0.1, 0.2]", "{}[0.1, 0.2]"),
        ("two\n\nlines", "two lines"),
    ],
)
def test_latex_is_escaped(text, escaped):
    assert escape_latex(text) == escaped


def test_a_latex_table_has_a_cell_a_column_and_rules():
    table = tabular(LINES, "50 % of it", extra=1)
    assert r"\begin{tabular}{lr}" in table
    assert r"\caption{50 \% of it}" in table
    rows = [line for line in table.splitlines() if line.endswith(r" \\")]
    assert len(rows) == 3
    assert all(row.count(" & ") == 1 for row in rows)
    assert table.count(r"\midrule") == 2


def test_csv_reads_back():
    lines = [["method", "mean"], ['say "hi", you', 0.1], ["two\nlines", None]]
    found = list(csv.reader(io.StringIO(comma_separated(lines))))
    assert found == [["method", "mean"], ['say "hi", you', "0.1"], ["two\nlines", ""]]
