"""Warnings as a line of the command line, without a place in the source."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from wordlight.backends.vocabulary import UnknownWordsWarning

#: How many prompts with unknown words are named before the rest are only counted.
_NAMED = 3


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print each warning as ``wordlight: warning: ...`` on stderr while the block runs.

    Of prompts with unknown words the first few are named, the others counted at the end.
    """
    unknown = 0

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        nonlocal unknown
        if issubclass(category, UnknownWordsWarning):
            unknown += 1
            if unknown > _NAMED:
                return
        print(f"wordlight: warning: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UnknownWordsWarning)
        warnings.showwarning = show
        try:
            yield
        finally:
            if unknown > _NAMED:
                print(
                    f"wordlight: warning: {unknown - _NAMED} more prompts have words that the "
                    "model was never trained on",
                    file=sys.stderr,
                )
