"""Makes the README's first picture, the viewer in Chromium: python docs/make_viewer_picture.py"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from site_hooks import live_viewer  # noqa: E402
from tests import chromium  # noqa: E402


def main() -> None:
    """Open the viewer of the start page, pin two words and a pixel."""
    with tempfile.TemporaryDirectory() as folder, chromium.browser() as page:
        file = Path(folder) / "viewer.html"
        file.write_text(live_viewer((ROOT / "docs" / "index.md").read_text("utf-8")), "utf-8")
        page.show(1200, dark=True, height=800)
        page.open(file)
        page.wait_for("document.querySelector('.wl[data-ready]')")
        for word in ("dog", "bus"):
            number = page.evaluate(
                "[...document.querySelectorAll('.wl-text')]"
                f".find((e) => e.textContent === '{word}').dataset.word"
            )
            page.click(f".wl-text[data-word='{number}']")
        for control, value in (("opacity", "45"), ("threshold", "70"), ("rank", "share")):
            page.evaluate(
                f"(() => {{ const e = document.querySelector('[data-control={control}]');"
                f" e.value = '{value}'; e.dispatchEvent(new Event('input'));"
                " e.dispatchEvent(new Event('change')); })()"
            )
        page.click(".wl-stage", 0.26, 0.36)
        page.settle()
        page.picture(ROOT / "docs" / "images" / "viewer.png")


if __name__ == "__main__":
    main()
