"""``wordlight study faithfulness``: do maps say what the model does?"""

from __future__ import annotations

import argparse
import shlex
import tempfile
from contextlib import nullcontext
from pathlib import Path

from wordlight.comparisons.cli.arguments import (
    Commands,
    add_command,
    add_count,
    add_folder,
    add_options,
    add_output,
    add_seed,
)
from wordlight.comparisons.cli.compare import (
    status_of,
    warnings_on_stderr,
)
from wordlight.comparisons.runs.options import whole_number
from wordlight.comparisons.runs.plan import Arguments

NAME = "faithfulness"
#: Options of a comparison that the study has in another form.
_OWN = ("metrics", "n", "calibration", "seed", "steps", "out")
_EPILOG = """\
Judges maps by the model, and not by masks:

  order        deletion and insertion: words go out (in) in the order of their scores for an
               object's region; the area under what is left of the target there, as a share.
               Deletion is better the lower, insertion the higher.
  removal      does a word's map lie where the image changes when it is drawn without the word,
               from the same noise? Rank correlation, and the IoU of both, cut at 0.4. The method
               regeneration is that change itself: a reference, and not ranked.
  infidelity   random sets of words: do their maps add up, at each pixel, to what changes when they
               are taken out? The squared error as a share of what maps of zeros have; the lower
               the better. Signed maps are taken as they are, others at the scale that suits them
               best; @best-scale does so for all.
  sensitivity  how far maps move when the embeddings are changed a little; the lower the better, but
               controls that look at no model have 0. Not measured for methods that read the text.

It is `wordlight compare --metrics faithfulness` with tables of its own, and takes the same data,
budget, maps, frameworks and workers. Controls stand beside the methods; shuffled-word gives each
word the map of a word of another object. Letters mark what can't be told apart. With --out, a study
that was stopped goes on where it was.

examples:
  wordlight study faithfulness -n 8 -o out/faithfulness
  wordlight study faithfulness --method occlusion --method center --metric infidelity
"""


def add_to(studies: Commands) -> None:
    """Add the study."""
    parser = add_command(
        studies,
        NAME,
        "whether methods' maps say what the model does without a word",
        _EPILOG,
    )
    parser.add_argument(
        "--metric",
        action="append",
        choices=("order", "removal", "infidelity", "sensitivity"),
        help="what is measured, repeatable (default: everything)",
    )
    add_count(parser, 8)
    for name, default, what in (
        ("steps", 4, "evenly spaced denoising steps, of methods and metrics alike"),
        ("calibration", 16, "images on which the centre's width is chosen, where it is a row"),
        ("sets", 16, "random sets of words an image, for infidelity"),
        ("perturbations", 2, "other embeddings an image, for sensitivity"),
    ):
        parser.add_argument(
            f"--{name}",
            type=whole_number(1),
            default=default,
            metavar="N",
            help=f"{what} (default: {default})",
        )
    parser.add_argument(
        "--radius",
        type=float,
        default=0.02,
        metavar="R",
        help="how far these are at most, in root mean squares of the embeddings (default: 0.02)",
    )
    add_seed(parser, "noise, sets and resampling")
    add_folder(
        parser,
        (
            "keep the run there (cells, maps, images, tables, a page), with the numbers "
            f"({NAME}.json) and the tables ({NAME}.txt) of the study"
        ),
    )
    add_options(parser, Arguments, leave_out=_OWN)
    add_output(parser, bars="progress bars")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draw, attribute, take words out and print."""
    from wordlight.comparisons.cli.studies.arguments import tell
    from wordlight.comparisons.studies.faithfulness import (
        GROUPS,
        FaithfulnessOptions,
        study_faithfulness,
    )

    names = ("steps", "calibration", "sets", "perturbations", "radius", "seed")
    options = FaithfulnessOptions(**{name: getattr(arguments, name) for name in names})
    asked = Arguments.typed(arguments)
    for name in _OWN:
        asked.pop(name, None)
    folder = tempfile.TemporaryDirectory() if arguments.out is None else nullcontext(arguments.out)
    with folder as out, warnings_on_stderr():
        found = study_faithfulness(
            out=Path(out),
            n=arguments.n,
            groups=arguments.metric or GROUPS,
            options=options,
            progress=not arguments.quiet,
            command=shlex.join(arguments.command_line),
            **asked,
        )
    tell(arguments, NAME, found.to_json(), found.text)
    return status_of(found.comparison)
