"""The models that come with the package, and what their cards recommend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SCENES = Path(__file__).parent / "scenes" / "model"
_THINGS = Path(__file__).parent / "things"
#: Models that come with the package, by name.
EMBEDDED = {
    "scenes": SCENES,
    "things": _THINGS / "model",
    "things-dit": _THINGS / "model-dit",
}
#: What their cards recommend.
RECOMMENDED: dict[str, dict[str, Any]] = {
    name: {"steps": 20, "guidance_scale": 3.0} for name in EMBEDDED
}

#: What to write a single word in, for a text encoder that has read little else, by model.
WORD_TEMPLATES = dict.fromkeys(EMBEDDED, "a {word} on a white background")
#: The same for CLIP, and what has read as much (Radford et al. 2021, section 3.1.4).
WORD_TEMPLATE = "a photo of a {word}"
