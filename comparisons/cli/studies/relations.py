"""``wordlight study relations``: heads and their dependents."""

from __future__ import annotations

import argparse
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
    from wordlight.comparisons.studies.relations import RelationsStudy

NAME = "relations"
_EPILOG = """\
For each dependency relation how the maps of a head and of its dependent overlap: mIoD, the share
of the dependent's mask that the head's covers; mIoH, the share of the head's that the dependent's
covers; mIoU. Pairs of words without a relation are what to compare with. What the paper of DAAM
found stands beside (another model, other prompts). Intervals are 95 %, by bootstrap over images.

examples:
  wordlight study relations -n 16 -o out/relations
  wordlight study relations --model path/to/model --conllu captions.conllu -n 100 -o out/relations
"""


def add_to(studies: Commands) -> None:
    """Add the study."""
    parser = add_command(
        studies, NAME, "how the maps of a head and its dependents overlap, by relation", _EPILOG
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.4,
        metavar="T",
        help="where maps are cut, once they run from 0 to 1 (default: 0.4)",
    )
    add_study_arguments(parser, NAME)
    add_texts(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Draw, attribute, overlap and print."""
    from wordlight.comparisons.studies.relations import study_relations

    backend = load_model(arguments)
    texts = texts_of(arguments, backend)
    with ProgressBar[object](
        desc="comparing maps", total=len(texts), unit="images", disable=arguments.quiet
    ) as bar:
        found = study_relations(
            backend,
            texts,
            method=arguments.method,
            steps=arguments.steps,
            threshold=arguments.threshold,
            seed=arguments.seed,
            on_image=bar.update,
        )
    tell(arguments, NAME, found.to_json(), table(found))


def table(found: RelationsStudy) -> str:
    """The study as text."""
    from wordlight.comparisons.results.text_tables import aligned
    from wordlight.comparisons.studies.results import estimate_text, notes
    from wordlight.comparisons.studies.texts import PAPER

    lines = [["relation", "pairs", "mIoD [95 %]", "mIoH [95 %]", "mIoU [95 %]", "paper mIoD/mIoH"]]
    for row in found.rows:
        paper = "-" if row.paper is None else f"{row.paper[0]:.3f}/{row.paper[1]:.3f}"
        numbers = [estimate_text(one) for one in (row.iod, row.ioh, row.iou)]
        lines.append([row.relation, str(row.iod.n), *numbers, paper])
    return "\n".join(
        [
            f"{found.method} on {found.images} images by {found.model} ({found.source})",
            "",
            aligned(lines),
            "",
            *notes(
                f"maps are cut at {found.threshold:g}, once they run from 0 to 1; unrelated pairs "
                "are counted in both roles; punctuation counts for its own relation alone",
                f"paper: {PAPER}; Stable Diffusion on captions of COCO",
                f"{found.not_placed} words have no map of their own" if found.not_placed else "",
            ),
        ]
    )
