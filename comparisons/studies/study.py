"""The base of studies: options are fields, ``find`` does it, ``run`` writes what was found."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from wordlight.attribution import registry
from wordlight.backends.progress_bar import ProgressBar
from wordlight.comparisons.runs.options import (
    PATH,
    TEXTS,
    ModelOptions,
    option,
    options,
    whole,
)
from wordlight.comparisons.store.lock import locked
from wordlight.comparisons.store.output_folder import writable_folder
from wordlight.comparisons.studies.results import write_study


class StudyResult(Protocol):
    """The findings of a study."""

    @property
    def text(self) -> str:
        """The tables, for a terminal."""
        ...

    def to_json(self) -> Any:
        """Plain data; what can't be estimated is null."""
        ...


@options
class Study(ModelOptions, ABC):
    """A study of a model. A subclass adds its options as fields, and says how it is called.

    Attributes:
        name: after ``wordlight study``, and of its files.
        line, epilog: the command line's help.
        left_out: fields that are no flags.
        progress: whether a bar is shown.
    """

    name: ClassVar[str]
    line: ClassVar[str]
    epilog: ClassVar[str] = ""
    left_out: ClassVar[tuple[str, ...]] = ()

    out: Path | None = option(
        PATH,
        "the folder for the numbers (NAME.json), the text (NAME.txt) and pictures, if any",
        default=None,
        flags=("-o", "--out"),
        metavar="FOLDER",
    )
    progress: bool = True

    @classmethod
    def asked(cls, arguments: argparse.Namespace, *, progress: bool, command: str) -> Self:
        """The study that a command line asks for; ``command`` is what was typed."""
        return cls(**cls.typed(arguments), progress=progress)

    @abstractmethod
    def find(self) -> StudyResult:
        """Do the study."""

    def check(self) -> None:
        """Raises ValueError for what is wrong whatever the model: methods that there aren't."""
        asked: str | Sequence[str] | None = getattr(self, "method", None)
        for name in [asked] if isinstance(asked, str) else asked or ():
            registry.get(name)

    def write(self, out: Path, found: Any) -> None:
        """Write what else than numbers and text was found into a folder."""

    def run(self) -> StudyResult:
        """Do the study, alone in its folder where it has one, and write what was found there.

        Raises ValueError, OSError for a folder that is in use or can't be written.
        """
        self.check()  # before seconds of loading
        if self.out is None:
            return self.find()
        with writable_folder(self.out), locked(self.out):
            found = self.find()
            write_study(self.out, self.name, found.to_json(), found.text)
            self.write(self.out, found)
        return found

    def bar(self, what: str, total: int | None, unit: str) -> ProgressBar[object]:
        """The progress bar."""
        return ProgressBar(desc=what, total=total, unit=unit, disable=not self.progress)


def number_of(what: str, default: int) -> Any:
    """A field: ``-n``, how many images or prompts."""
    return option(whole(1), f"the number of {what}", default=default, flags=("-n",), metavar="N")


def steps_looked_at() -> Any:
    """A field: ``--steps``."""
    steps = "the number of evenly spaced denoising steps that methods look at"
    return option(whole(1), steps, default=4, metavar="N")


def seed_of(what: str = "the images' noise") -> Any:
    """A field: ``--seed``."""
    return option(whole(0), f"the seed of {what}", default=0, metavar="N")


def methods_named(default: str) -> Any:
    """A field: ``--method``, repeatable; ``default`` says which are meant where none is named."""
    told = f"a method, repeatable; `wordlight methods` lists them (default: {default})"
    return option(TEXTS, told, default=None, flags=("--method",), metavar="NAME")
