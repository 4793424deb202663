"""Tables of text: in columns, Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

Lines = list[list[str]]

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{one: f"\\{one}" for one in "&%$#_{}"},
}


def aligned(lines: Lines, extra: int = 0, *, words: bool = False) -> str:
    """Columns in line; the last ``extra`` lines stand below a rule of their own.

    Numbers are to the right, and ``words`` to the left, as names in the first column always are.
    """
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    rule = "  ".join("-" * width for width in widths)
    header, *body = ("  ".join(_fit(line, widths, words)).rstrip() for line in lines)
    ranked = len(body) - extra
    apart = [rule] if 0 < ranked < len(body) else []
    return "\n".join([header, rule, *body[:ranked], *apart, *body[ranked:]])


def _fit(line: Sequence[str], widths: Sequence[int], words: bool) -> list[str]:
    fit = str.ljust if words else str.rjust
    first, *rest = line
    return [first.ljust(widths[0]), *(fit(c, w) for c, w in zip(rest, widths[1:], strict=True))]


def markdown_table(lines: Lines) -> str:
    """A Markdown table."""
    escaped = [[escape_markdown(cell) for cell in line] for line in lines]
    header, *body = (f"| {' | '.join(line)} |" for line in escaped)
    rule = f"|{'---|' + '---:|' * (len(lines[0]) - 1)}"
    return "\n".join([header, rule, *body])


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, in one line: names of files and models may hold HTML."""
    for one, shown in (("\\", "\\\\"), ("|", "\\|"), ("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(one, shown)
    return " ".join(text.split())


def tabular(lines: Lines, caption: str, extra: int = 0) -> str:
    """A LaTeX table (it needs ``booktabs``); the last ``extra`` lines stand below a rule."""
    header, *body = (" & ".join(escape_latex(cell) for cell in line) + r" \\" for line in lines)
    ranked = len(body) - extra
    apart = [r"\midrule"] if 0 < ranked < len(body) else []
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(lines[0]) - 1)}}}",
            r"\toprule",
            *(header, r"\midrule", *body[:ranked], *apart, *body[ranked:]),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is; an opening bracket never begins an optional argument."""
    escaped = "".join(_LATEX.get(one, one) for one in " ".join(text.split()))
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped


def comma_separated(lines: Iterable[Sequence[object]]) -> str:
    """CSV as RFC 4180 has it; None is an empty cell, numbers are written in full."""
    buffer = io.StringIO()
    csv.writer(buffer).writerows(lines)
    return buffer.getvalue()
