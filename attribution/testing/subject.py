"""A method under test: how it is made and asked, and how a failure is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
import xarray as xr

from wordlight.attribution.attributor import TextImageAttributor
from wordlight.attribution.maps import AttributionMaps
from wordlight.attribution.question import Answer, Question
from wordlight.attribution.testing.audit import footprint
from wordlight.attribution.testing.specimens import Specimens
from wordlight.attribution.words import WordKey
from wordlight.backends.backend import Backend
from wordlight.backends.trajectory import Trajectory


@dataclass(frozen=True, eq=False)
class RawAnswer:
    """The answer of ``_attribute`` before anything was made of it, with the number of players;
    ``result`` is what became of it, or the error."""

    maps: xr.DataArray
    players: int
    result: AttributionMaps | Exception


class Subject:
    """A method and the images that it is tested on.

    Args:
        make: from backend to attributor.
        specimens: the images, and the backend.
    """

    def __init__(
        self, make: Callable[[Backend], TextImageAttributor], specimens: Specimens
    ) -> None:
        self._make = make
        self.specimens = specimens
        self.backend = specimens.backend
        self.footprint = footprint(self.backend)
        # Specimens stay alive, so their ids stay theirs.
        self._raw: dict[int, RawAnswer] = {}

    def made(self) -> TextImageAttributor:
        """A fresh attributor; AssertionError where there is none."""
        made = self._make(self.backend)
        if not isinstance(made, TextImageAttributor):
            raise AssertionError(
                f"{made!r} is no attributor: a method is a subclass of TextImageAttributor"
            )
        return made

    @cached_property
    def attributor(self) -> TextImageAttributor:
        """One attributor, the same for all checks."""
        return self.made()

    def fail(self, what: str) -> NoReturn:
        """Raises AssertionError, in the method's name."""
        raise AssertionError(f"{self.attributor.name}: {what}")

    def expect(self, right: object, what: str) -> None:
        """Raises AssertionError where something isn't right."""
        if not right:
            self.fail(what)

    def ask(
        self,
        trajectory: Trajectory,
        words: Sequence[WordKey] | None = None,
        attributor: TextImageAttributor | None = None,
    ) -> AttributionMaps:
        """The maps; AssertionError where the method raises instead."""
        asked = attributor or self.attributor
        try:
            maps = asked.attribute(trajectory, words)
        except Exception as error:
            raise AssertionError(self._raised(error, trajectory)) from error
        if not isinstance(maps, AttributionMaps):
            self.fail(f"attribute gave {type(maps).__name__}, and should give AttributionMaps")
        return maps

    def ask_anyhow(
        self, trajectory: Trajectory, attributor: TextImageAttributor | None = None
    ) -> None:
        """Ask, for what the method does on the way: what it answers, or that it fails to, is
        another check's."""
        with suppress(Exception):
            (attributor or self.made()).attribute(trajectory)

    def answer(self, trajectory: Trajectory) -> AttributionMaps:
        """The maps of a specimen, which is asked about once for all checks that only look."""
        result = self.raw(trajectory).result
        if isinstance(result, Exception):
            raise AssertionError(self._raised(result, trajectory)) from result
        return result

    def raw(self, trajectory: Trajectory) -> RawAnswer:
        """Return the method's own answer, also where ``AttributionMaps`` refuses it; asked once."""
        if id(trajectory) not in self._raw:
            self._raw[id(trajectory)] = self._ask_raw(trajectory)
        return self._raw[id(trajectory)]

    def _ask_raw(self, trajectory: Trajectory) -> RawAnswer:
        attributor = self.made()
        caught: list[tuple[xr.DataArray, int]] = []
        inner = attributor._attribute

        def spy(question: Question) -> Answer:
            answer = inner(question)
            caught.append((answer.maps, len(question.players)))
            return answer

        attributor._attribute = spy  # type: ignore[method-assign]
        try:
            maps = attributor.attribute(trajectory)
        except Exception as error:
            if not caught:
                raise AssertionError(self._raised(error, trajectory)) from error
            return RawAnswer(*caught[-1], error)
        if not isinstance(maps, AttributionMaps):
            self.fail(f"attribute gave {type(maps).__name__}, and should give AttributionMaps")
        return RawAnswer(*(caught[-1] if caught else (maps.data, len(maps.players))), maps)

    def _raised(self, error: Exception, trajectory: Trajectory) -> str:
        return (
            f"{self.attributor.name}: attribute raised {type(error).__name__} ({error}) on "
            f"{trajectory.prompt!r}, and should give maps"
        )


def maps_equal(one: AttributionMaps, two: AttributionMaps) -> bool:
    """Return whether two answers are equal, to the bit."""
    return one.players == two.players and bool(np.array_equal(one.data.values, two.data.values))


def words_in(players: Sequence[Any]) -> str:
    """The players' texts, for a sentence."""
    return ", ".join(repr(player.text) for player in players)
