"""The README's first picture: the viewer, as Chromium shows it.

python docs/make_viewer_picture.py out/look
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests import chromium  # noqa: E402


def main(folder: Path) -> None:
    """Open ``viewer.html`` of a folder of `wordlight attribute`, pin two words and a pixel."""
    with chromium.browser() as page:
        page.show(1200, dark=True, height=800)
        page.open(folder.resolve() / "viewer.html")
        page.wait_for("document.querySelector('.wl[data-ready]')")
        for word in ("square", "circle"):
            number = page.evaluate(
                "[...document.querySelectorAll('.wl-text')]"
                f".find((e) => e.textContent === '{word}').dataset.word"
            )
            page.click(f".wl-text[data-word='{number}']")
        for control, value in (("threshold", "75"), ("rank", "share")):
            page.evaluate(
                f"(() => {{ const e = document.querySelector('[data-control={control}]');"
                f" e.value = '{value}'; e.dispatchEvent(new Event('input'));"
                " e.dispatchEvent(new Event('change')); })()"
            )
        page.click(".wl-stage", 0.26, 0.36)
        page.settle()
        page.picture(ROOT / "docs" / "images" / "viewer.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
