"""``wordlight study entanglement``: cohyponyms, and adjectives that spread."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from wordlight.backends.progress_bar import ProgressBar
from wordlight.comparisons.cli.arguments import Commands, add_command, load_model
from wordlight.comparisons.cli.studies.arguments import add_study_arguments, tell

if TYPE_CHECKING:
    from wordlight.comparisons.studies.entanglement import EntanglementStudy, Finding

NAME = "entanglement"
_EPILOG = """\
Two experiments after the paper of DAAM, on prompts of two coloured shapes, each with controls
drawn from the same noise. Cohyponyms: do the maps of two nouns of one kind (circle, square)
overlap, and is each drawn worse than alone, or than beside another of its own shape? Adjectives:
how much of a colour word's map lies outside its object, and what moves in the rest of the image
when another colour takes its place? Intervals are 95 %, by bootstrap over prompts.

The model must draw coloured shapes: what it drew is found by their colours.

example:
  wordlight study entanglement -n 16 -o out/entanglement
"""


def add_to(studies: Commands) -> None:
    """Add the study."""
    parser = add_command(
        studies, NAME, "whether words get into each other's way: cohyponyms, adjectives", _EPILOG
    )
    add_study_arguments(parser, NAME)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Draw each prompt with its controls, compare and print."""
    from wordlight.comparisons.studies.entanglement import study_entanglement

    backend = load_model(arguments)
    with ProgressBar[object](
        desc="drawing prompts", total=arguments.n, unit="prompts", disable=arguments.quiet
    ) as bar:
        found = study_entanglement(
            backend,
            n=arguments.n,
            method=arguments.method,
            steps=arguments.steps,
            seed=arguments.seed,
            on_image=bar.update,
        )
    tell(arguments, NAME, found.to_json(), table(found))


def table(found: EntanglementStudy) -> str:
    """The study as text."""
    from wordlight.comparisons.results.text_tables import aligned
    from wordlight.comparisons.studies.entanglement import THRESHOLD
    from wordlight.comparisons.studies.results import estimate_text, notes
    from wordlight.comparisons.studies.texts import PAPER

    def rows(findings: tuple[Finding, ...], what: str) -> str:
        lines = [[what, "n", "mean [95 %]"]]
        lines += [
            [f"{f.name}: {f.condition}", str(f.estimate.n), estimate_text(f.estimate)]
            for f in findings
        ]
        return aligned(lines)

    return "\n".join(
        [
            f"{found.method} on {found.images} prompts drawn by {found.model}",
            "",
            rows(found.cohyponyms, "cohyponyms"),
            "",
            rows(found.adjectives, "adjectives"),
            "",
            *notes(
                f"masks of maps: where they are at least {THRESHOLD:g}, once they run from 0 to 1",
                "loss: of the share drawn right, object by object, from the same noise",
                "change: mean over pixels, from black to white 1; at the same noise, but for the "
                "rows that say otherwise",
                "objects without numbers of adjectives, since the image doesn't show them or the "
                f"other one: {found.dropped} of {2 * found.images}",
                f"paper: {PAPER}: the presence of cohyponyms worsens generation by 9 %, and "
                "descriptive adjectives attend too broadly (Stable Diffusion)",
            ),
        ]
    )
