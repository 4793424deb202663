"""A folder in which a command replaces what it wrote before, and nothing else."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wordlight.backends.regular_files import read_json_file
from wordlight.comparisons.store.output_folder import OutputFolderError

#: In bytes; a list of files has less.
_LONGEST_LIST = 2**24


@dataclass(frozen=True)
class OwnedFiles:
    """The files that runs of one command wrote into a folder, by the list that they leave there.

    Attributes:
        folder: where.
        listing: the list's own name.
        command: who writes it, as it is said in the list and in messages.
        names: the pattern of its files' names; others aren't its own whatever a list says.
    """

    folder: Path
    listing: str
    command: str
    names: re.Pattern[str]

    def written_before(self) -> frozenset[str]:
        """The names of the files there that an earlier run wrote."""
        try:
            told = read_json_file(self.folder / self.listing, _LONGEST_LIST)
            if told["command"] != self.command:
                return frozenset()
            listed = [str(name) for name in told["files"]]
        except (OSError, ValueError, KeyError, TypeError):
            return frozenset()
        return frozenset({self.listing, *(n for n in listed if self.names.fullmatch(n))})

    def check_free(self, names: Iterable[str]) -> None:
        """Raises OutputFolderError where a file that is none of the command's would be replaced."""
        own = self.written_before()
        foreign = [
            name
            for name in (*names, self.listing)
            if name not in own and os.path.lexists(self.folder / name)
        ]
        if foreign:
            raise OutputFolderError(
                f"{self.folder} holds {', '.join(foreign[:3])}"
                f"{f' and {len(foreign) - 3} more' if len(foreign) > 3 else ''}, which "
                f"{self.command} did not write there and would replace: name another folder, or "
                "move what is there"
            )

    def list_in(self, partial: Path, names: Iterable[str], facts: dict[str, Any]) -> None:
        """Write the list of a run's files, with facts of its own, to be moved there with them."""
        told = {"command": self.command, "files": sorted(names), **facts}
        (partial / self.listing).write_text(json.dumps(told, indent=2) + "\n", "utf-8")

    def remove(self, names: Iterable[str]) -> None:
        """Delete files of an earlier run."""
        for name in names:
            (self.folder / name).unlink(missing_ok=True)
