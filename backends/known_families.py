"""Families of denoisers that the PyTorch backend knows, and what each can do."""

from __future__ import annotations

from typing import Any

from wordlight.backends.model_folder import ModelLoadError
from wordlight.backends.progress_bar import ProgressBar


def known_families() -> list[dict[str, Any]]:
    """Return the families: name, classes of their denoisers, and what they lack, with the reason.

    Raises ModelLoadError where PyTorch's packages aren't installed.
    """
    try:
        from wordlight.backends.torch.families import FAMILIES
    except ImportError as error:
        raise _not_installed(error) from None
    return [
        {"name": family.name, "denoisers": list(family.classes), "lacks": dict(family.lacks)}
        for family in FAMILIES
    ]


def capability_matrix(*, show_progress: bool = False) -> dict[str, dict[str, str]]:
    """Try what each family can do on a tiny model of it; see ``torch.capabilities.matrix``.

    Raises ModelLoadError where PyTorch's packages aren't installed.
    """
    try:
        from wordlight.backends.torch.capabilities import matrix
        from wordlight.backends.torch.tiny import TINY
    except ImportError as error:
        raise _not_installed(error) from None
    return matrix(ProgressBar(TINY, desc="trying models", unit="models", disable=not show_progress))


def _not_installed(error: ImportError) -> ModelLoadError:
    return ModelLoadError(
        f"families are of the torch backend ({error.name} is missing): "
        "pip install 'wordlight[torch]'"
    )


#: Columns of a table that a page has room for.
_MOST_COLUMNS = 8


def matrix_table(rows: dict[str, dict[str, str]]) -> str:
    """Return a capability matrix as tables in Markdown, the reasons numbered below them."""
    reasons = list(
        dict.fromkeys(cell for row in rows.values() for cell in row.values() if cell != "✓")
    )
    columns = list(next(iter(rows.values())))
    lines = []
    for start in range(0, len(columns), _MOST_COLUMNS):
        own = columns[start : start + _MOST_COLUMNS]
        lines += ["| model | " + " | ".join(own) + " |", "|---|" + ":-:|" * len(own)]
        for family, row in rows.items():
            cells = [row[name] for name in own]
            told = [c if c == "✓" else f"– {reasons.index(c) + 1}" for c in cells]
            lines.append(f"| {family} | " + " | ".join(told) + " |")
        lines.append("")
    return "\n".join([*lines, *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1))])
