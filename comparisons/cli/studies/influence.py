"""``wordlight study influence``: parts of speech."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from wordlight.backends.progress_bar import ProgressBar
from wordlight.comparisons.cli.arguments import Commands, add_command, load_model
from wordlight.comparisons.cli.studies.arguments import (
    add_study_arguments,
    add_texts,
    tell,
    texts_of,
)

if TYPE_CHECKING:
    from wordlight.comparisons.studies.influence import InfluenceStudy

NAME = "influence"
_EPILOG = """\
Two answers for each part of speech, which need not agree. How far its words' maps spread: the
share of pixels at 0.4 or more once a map runs from 0 to 1, averaged over words, as in the first
version of the paper of DAAM, whose figures stand beside (another model, other prompts). And what
its words do: how much of the image changes when all of them are taken out of the prompt and it is
drawn again from the same noise. Intervals are 95 %, by bootstrap over images.

examples:
  wordlight study influence -n 16 -o out/influence
  wordlight study influence --model path/to/model --conllu captions.conllu -n 100 -o out/influence
"""


def add_to(studies: Commands) -> None:
    """Add the study."""
    parser = add_command(
        studies, NAME, "how much of an image words of each part of speech take up", _EPILOG
    )
    add_study_arguments(parser, NAME)
    add_texts(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Draw, take words out, draw again and print."""
    from wordlight.comparisons.studies.influence import study_influence

    backend = load_model(arguments)
    texts = texts_of(arguments, backend)
    with ProgressBar[object](
        desc="taking words out", total=len(texts), unit="images", disable=arguments.quiet
    ) as bar:
        found = study_influence(
            backend,
            texts,
            method=arguments.method,
            steps=arguments.steps,
            seed=arguments.seed,
            on_image=bar.update,
        )
    tell(arguments, NAME, found.to_json(), table(found))


def table(found: InfluenceStudy) -> str:
    """The study as text."""
    from wordlight.comparisons.results.text_tables import aligned
    from wordlight.comparisons.studies.influence import CHANGED, THRESHOLD
    from wordlight.comparisons.studies.results import estimate_text, notes
    from wordlight.comparisons.studies.texts import PAPER

    lines = [
        [
            "part of speech",
            "words",
            f"share >= {THRESHOLD:g} [95 %]",
            "paper",
            "taken out",
            "pixels changed [95 %]",
            "mean change [95 %]",
        ]
    ]
    for one in found.classes:
        lines.append(
            [
                one.tag,
                str(one.spread.n),
                estimate_text(one.spread),
                "-" if one.paper is None else f"{one.paper:.3f}",
                f"{one.words_out:.1f}" if one.changed.n else "-",
                estimate_text(one.changed),
                estimate_text(one.change),
            ]
        )
    changed, change = (estimate_text(estimate) for estimate in found.other_noise)
    lines.append(["(other noise)", "-", "-", "-", "0.0", changed, change])
    with_paper, of_paper = found.rank_correlation("spread", "paper")
    with_fact, of_fact = found.rank_correlation("spread", "changed")
    return "\n".join(
        [
            f"{found.method} on {found.images} images by {found.model} ({found.source})",
            "",
            aligned(lines, extra=1),
            "",
            *notes(
                f"share >= {THRESHOLD:g}: of pixels, where a word's map is at least so high, once "
                "it runs from 0 to 1",
                "taken out: all words of the class, as many as stand there on average",
                f"pixels changed: by more than {CHANGED:g} of the way from black to white, at the "
                "same noise",
                "other noise: the whole prompt drawn once more from other noise, to compare with",
                f"paper: {PAPER}v1; Stable Diffusion 1.4 on captions of COCO",
                f"rank correlation of the shares with the paper's: {_signed(with_paper)} over "
                f"{of_paper} parts of speech; with pixels changed: {_signed(with_fact)} over "
                f"{of_fact}",
                f"{found.not_placed} words have no map of their own" if found.not_placed else "",
            ),
        ]
    )


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.2f}"
