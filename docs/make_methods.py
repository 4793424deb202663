"""Makes the pictures and numbers of ``docs/methods``: run by ``make methods``."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from methods_measures import STEPS, completeness, out_of_the_sentence
from methods_pictures import draw, shown
from methods_scores import Scores
from pages import fill
from tqdm import tqdm

from wordlight.attribution import InputXGradient, NoiseTunnel, registry
from wordlight.backends import load
from wordlight.comparisons.rows.row import step_options


def main() -> None:
    """Measure and draw what isn't in the folders, then write it all into the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "comparisons",
        type=Path,
        nargs="+",
        metavar="COMPARISON",
        help="comparisons' folders, the one of all methods first",
    )
    parser.add_argument("--sanity", type=Path, required=True, help="a sanity study's folder")
    parser.add_argument(
        "--docs", type=Path, default=Path(__file__).parent, help="where methods/ and images/ are"
    )
    parser.add_argument(
        "--prompts", type=int, default=24, help="for open vocabulary's table (default: 24)"
    )
    parser.add_argument(
        "--scores-only", action="store_true", help="no pictures, and nothing asked of the model"
    )
    options = parser.parse_args()
    try:
        scores = Scores.read(options.comparisons, options.sanity)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    pages, pictures = options.docs / "methods", options.docs / "images" / "methods"
    methods = {n: k for n, k in registry.available().items() if k.family != "control"}
    for name in methods:
        fill(pages / f"{name}.md", "scores", scores.of_a_method(name))
    fill(pages / "controls.md", "scores", scores.of_controls())
    fill(pages / "README.md", "table", scores.of_all(methods))
    pictures.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(options.sanity / "sanity.png", pictures / "sanity.png")
    if options.scores_only:
        return
    backend = load("scenes")
    trajectories = shown(backend)
    attributors = {
        name: kind(backend, **step_options(kind, STEPS))
        for name, kind in methods.items()
        if kind.needs <= backend.capabilities
    }
    attributors["noise-tunnel"] = NoiseTunnel(InputXGradient(backend, steps=STEPS))
    for name, method in tqdm(attributors.items(), desc="pictures"):
        draw(pictures / f"{name}.png", method, trajectories)
    page = pages / "integrated-gradients.md"
    fill(page, "completeness", completeness(backend, trajectories[0]))
    page = pages / "open-vocabulary.md"
    fill(page, "contexts", out_of_the_sentence(backend, options.prompts))


if __name__ == "__main__":
    main()
