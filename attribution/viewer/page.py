"""The page itself: panels side by side in one HTML file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from wordlight.attribution.viewer.panel import Panel
from wordlight.attribution.viewer.prompt import ShownPrompt, visible
from wordlight.backends.arrays_file import write_atomically

#: What would end a script, begin a comment or an entity, whatever reads the page.
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&'"}


@dataclass(frozen=True, eq=False)
class Viewer:
    """Maps to look at, in a browser or a notebook.

    Args:
        panels: one or several of one prompt or its negative prompt, shown side by side, with their
            words linked.
        title: of the page; the prompt where None.
        pinned: players of the first panel that are shown from the start.

    Raises:
        ValueError: no panel, or panels of different prompts.
    """

    panels: Sequence[Panel]
    title: str | None = None
    pinned: Sequence[int] = ()

    def __post_init__(self) -> None:
        if not self.panels:
            raise ValueError("there are no maps to show")
        ShownPrompt.of(self.panels)

    @property
    def _prompt(self) -> str:
        """The prompt, or the negative one where no panel is of the prompt."""
        return min(self.panels, key=lambda panel: panel.negative).prompt

    def html(self) -> str:
        """The page: it asks for no file and no address."""
        script = resource("viewer.js")
        title = self.title or visible(self._prompt)
        template = _environment().from_string(resource("page.html.j2"))
        return template.render(
            title=title.encode("utf-8", "replace").decode(),  # half characters can't be written
            style=Markup(resource("viewer.css")),
            script=Markup(script),
            script_hash=script_hash(script),
            viewer=self.element(),
        )

    def element(self, longest: int | None = None) -> Markup:
        """The viewer as an element of a page that has its script and its style.

        Images are reduced to ``longest`` pixels a side.
        """
        return Markup('<div class="wl"><script type="application/json">{}</script></div>').format(
            Markup(to_json(self._plain(longest)))
        )

    def to_html(self, path: str | Path) -> Path:
        """Write the page to one file, by atomic rename, and return its path."""
        path = Path(path)
        write_atomically(path, self.html().encode())
        return path

    def _plain(self, longest: int | None) -> dict[str, Any]:
        prompt = ShownPrompt.of(self.panels)
        return {
            **asdict(prompt),
            "warnings": list(dict.fromkeys(p.warning for p in self.panels if p.warning)),
            "pinned": [
                number
                for player in self.pinned
                for number, word in enumerate(prompt.words)
                if word.players[0] == player
            ],
            "panels": [self._panel(panel, longest) for panel in self.panels],
        }

    def _panel(self, panel: Panel, longest: int | None) -> dict[str, Any]:
        """A panel's data; an image that the first panel has too is kept once."""
        first = self.panels[0]
        again = panel is not first and np.array_equal(panel.image, first.image)
        return panel.plain(longest, with_image=not again)

    def _repr_html_(self) -> str:
        # A frame keeps the notebook's style and the page's apart, and runs the script in a box.
        return (
            f'<iframe srcdoc="{html.escape(self.html())}" sandbox="allow-scripts" '
            f'title="Attribution maps" loading="lazy" '
            'style="width: 100%; height: 720px; border: 0; border-radius: 12px"></iframe>'
        )


def to_json(data: Any) -> str:
    """JSON in ASCII that can stand inside a script element."""
    return json.dumps(data, ensure_ascii=True, separators=(",", ":")).translate(_ESCAPES)


def resource(name: str) -> str:
    """The text of one of the viewer's own files."""
    return (files("wordlight.attribution.viewer") / name).read_text("utf-8")


def script_hash(script: str) -> str:
    """The hash by which a content security policy lets a script run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _environment() -> Environment:
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
