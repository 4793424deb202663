"""Methods that can look at one text encoder's tokens alone, where several read the prompt."""

from __future__ import annotations

from dataclasses import replace

from wordlight.attribution.attributor import TextImageAttributor
from wordlight.backends.trajectory import Trajectory


class ByStream(TextImageAttributor):
    """A method of attention to tokens, which may be those of several text encoders.

    Args:
        stream: the encoder whose tokens are a word's (``"clip"``, ``"t5"``); all of them where
            None. The others' positions are then one player, ``<other>``.

    Raises:
        ValueError: a stream that the prompt hasn't, with the names there are (when asked).
    """

    stream: str | None = None

    def _seen(self, trajectory: Trajectory) -> Trajectory:
        if self.stream is None:
            return trajectory
        return replace(trajectory, tokens=trajectory.tokens.only(self.stream))
