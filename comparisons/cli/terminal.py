"""Output made harmless: texts of files and models may hold a terminal's commands."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

#: Control characters but tab, line feed and carriage return; what turns the direction of writing;
#: halves of characters, which no stream takes.
_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
#: How progress bars go up a line, written by themselves.
_UP = re.compile("(\x1b\\[A)+")


def escaped(text: str, encoding: str = "utf-8") -> str:
    r"""A text with what a terminal would obey, or an encoding lacks, written as escapes.

    >>> escaped("a\x1b[31m red")
    'a\\x1b[31m red'
    """
    shown = _UNSAFE.sub(lambda found: ascii(found.group())[1:-1], text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


class _EscapedStream:
    """A text stream that writes what ``escaped`` makes of a text; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if not _UP.fullmatch(text):
            text = escaped(text, self._stream.encoding or "utf-8")
        return self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def escaped_output() -> Iterator[None]:
    """Escape all that is printed while the block runs; of a closed stream, drop it."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        out: Any = _EscapedStream(sys.stdout or nowhere)
        err: Any = _EscapedStream(sys.stderr or nowhere)
        with redirect_stdout(out), redirect_stderr(err):
            yield
