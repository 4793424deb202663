"""How soon the viewer can be used after its page is opened, and how large the page is.

A page of 20 words over a smooth 512x512 image, maps of 64x64, with and without 20 steps kept apart,
is opened in headless Chromium. The time is the page's own clock, from navigation to the first frame
of a viewer that is ready; computing is what the page's main thread did of it, whatever else the
machine is busy with.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests import chromium
from tests.attribution.viewer.made_up import maps_of

_CLOCK = """
new MutationObserver((_, observer) => {
  if (!document.querySelector('.wl[data-ready]')) return;
  observer.disconnect();
  requestAnimationFrame(() => requestAnimationFrame(() => { window.readyAt = performance.now(); }));
}).observe(document, { subtree: true, childList: true, attributes: true });
"""


def write_page(path: Path, steps: int) -> int:
    """Write the page of noisy maps and image; return its size in bytes."""
    rng = np.random.default_rng(0)
    noise = gaussian_filter(rng.standard_normal((512, 512, 3)), (2, 2, 0))
    image = (255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)
    axes = {"step": list(range(steps))} if steps else {}
    prompt = " ".join(f"word{i}" for i in range(20))
    maps = maps_of(prompt, grid=(64, 64), axes=axes, image=image)
    maps.data.values[:] += 0.02 * rng.random(maps.data.shape)
    return maps.to_html(path).stat().st_size


def open_times(path: Path, rounds: int) -> list[tuple[float, float]]:
    """Milliseconds until the viewer is ready, by the clock and of computing, in new browsers."""
    times = []
    for _ in range(rounds):
        with chromium.browser() as page:
            page.show(1200)
            page.ask("Page.addScriptToEvaluateOnNewDocument", source=_CLOCK)
            page.ask("Performance.enable", timeDomain="threadTicks")
            page.open(path)
            page.wait_for("window.readyAt")
            metrics = page.ask("Performance.getMetrics")["metrics"]
            (busy,) = [one["value"] for one in metrics if one["name"] == "TaskDuration"]
            times.append((float(page.evaluate("window.readyAt")), 1000 * busy))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="openings of each page (5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for steps in (0, 20):
            path = Path(folder) / f"{steps}.html"
            size = write_page(path, steps)
            times = open_times(path, options.rounds)
            found["steps apart" if steps else "mean alone"] = {
                "megabytes": round(size / 1e6, 2),
                "milliseconds": round(statistics.median(clock for clock, _ in times)),
                "computing": round(statistics.median(busy for _, busy in times)),
            }
    if options.json:
        print(json.dumps(found))
        return
    for name, facts in found.items():
        print(
            f"{name}: {facts['megabytes']} MB, ready after {facts['milliseconds']} ms, "
            f"{facts['computing']} ms of them computing"
        )


if __name__ == "__main__":
    main()
