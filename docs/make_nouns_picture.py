"""Draws the README's picture of real nouns, docs/images/nouns.png.

    python docs/make_nouns_picture.py

It shows some words of the run of the README's own command, whose maps are those of
``wordlight attribute --model things-dit --method self-attention-refined``.
"""

from __future__ import annotations

from pathlib import Path

import wordlight
from wordlight.attribution import SelfAttentionRefined

PROMPT = "a dog to the left of a red bus on the grass"
WORDS = ("dog", "red", "bus", "grass")


def main() -> None:
    """Draw the picture, seed 0."""
    backend = wordlight.load("things-dit")
    maps = SelfAttentionRefined(backend).attribute(backend.sample(PROMPT, seed=0))
    place = Path(__file__).parent / "images" / "nouns.png"
    maps.plot(WORDS).savefig(place, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
