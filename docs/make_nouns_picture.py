"""Draws the README's picture of real nouns, docs/images/nouns.png.

    python docs/make_nouns_picture.py

It shows some words of the run of the README's own command, whose maps are those of
``wordlight attribute --model things-dit --method self-attention-refined``.
"""

from __future__ import annotations

import re
from pathlib import Path

import wordlight
from wordlight.attribution import SelfAttentionRefined

WORDS = ("dog", "red", "bus", "grass")


def main() -> None:
    """Draw the picture, of the prompt in README's command and seed 0."""
    readme = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
    (prompt,) = re.findall(r'-o out/nouns \\\n    "(.+)"', readme)
    backend = wordlight.load("things-dit")
    maps = SelfAttentionRefined(backend).attribute(backend.sample(prompt, seed=0))
    place = Path(__file__).parent / "images" / "nouns.png"
    maps.plot(WORDS).savefig(place, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
