"""``wordlight study faithfulness``: do maps say what the model does?"""

from __future__ import annotations

import argparse
import math
import tempfile
from contextlib import nullcontext
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from tqdm import tqdm

from wordlight.comparisons.cli.arguments import (
    Commands,
    add_command,
    add_count,
    add_folder,
    add_methods,
    add_model,
    add_output,
    add_seed,
    load_model,
    whole_number,
)

if TYPE_CHECKING:
    from wordlight.comparisons.studies.faithfulness import FaithfulnessStudy

NAME = "faithfulness"
_GROUPS = ("order", "removal", "infidelity", "sensitivity")
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

Controls stand beside the methods; shuffled-word gives each word the map of a word of another
object. Letters mark what can't be told apart. With --out, a study that was stopped goes on where it
was.

examples:
  wordlight study faithfulness -n 8 -o out/faithfulness
  wordlight study faithfulness --method occlusion --method center --metric infidelity
"""


def add_to(studies: Commands) -> None:
    """Add the study."""
    parser = add_command(
        studies, NAME, "whether methods' maps say what the model does without a word", _EPILOG
    )
    add_model(parser)
    add_methods(parser, default="those of compare, and regeneration where removal is measured")
    parser.add_argument(
        "--metric",
        action="append",
        choices=_GROUPS,
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
            f"keep cells, maps and images there, and write the numbers ({NAME}.json) and the "
            f"tables ({NAME}.txt)"
        ),
    )
    add_output(parser, bars="progress bar")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Draw, attribute, take words out and print."""
    from wordlight.comparisons.cli.studies.arguments import tell
    from wordlight.comparisons.studies.faithfulness import (
        FaithfulnessOptions,
        rows_of,
        study_faithfulness,
    )

    methods = list(dict.fromkeys(arguments.method)) if arguments.method else None
    groups = tuple(dict.fromkeys(arguments.metric or _GROUPS))
    cells = arguments.n * len(rows_of(methods, groups))
    backend = load_model(arguments)
    folder = tempfile.TemporaryDirectory() if arguments.out is None else nullcontext(arguments.out)
    with (
        folder as out,
        tqdm(desc="judging maps", total=cells, unit="cell", disable=arguments.quiet) as bar,
    ):
        found = study_faithfulness(
            backend,
            methods,
            out=Path(out),
            n=arguments.n,
            groups=groups,
            options=FaithfulnessOptions(
                steps=arguments.steps,
                calibration=arguments.calibration,
                sets=arguments.sets,
                perturbations=arguments.perturbations,
                radius=arguments.radius,
                seed=arguments.seed,
            ),
            scheduler=arguments.scheduler,
            on_cell=bar.update,
        )
    tell(arguments, NAME, found.to_json(), tables(found))


def tables(found: FaithfulnessStudy) -> str:
    """The study as text."""
    from wordlight.comparisons.results.text_tables import aligned
    from wordlight.comparisons.stats.paired_tests import ALPHA
    from wordlight.comparisons.studies.faithfulness import GROUPS, LOWER_IS_BETTER, OF_REFERENCE
    from wordlight.comparisons.studies.results import estimate_text

    options = found.options
    parts = [
        fill(
            f"Do maps say what the model does? {found.images} test images drawn by {found.model}, "
            f"{found.words} shape nouns in images of two or more objects",
            104,
        )
    ]
    for metrics in GROUPS.values():
        if metrics[0] not in found.metrics:
            continue
        sign = {
            m: "lower is better" if m in LOWER_IS_BETTER else "higher is better" for m in metrics
        }
        lines = [["method", *(f"{m}, {sign[m]} [95 %]" for m in metrics), "forward-eq.", "seconds"]]
        measured = [row for row in found.rows if row.estimates[metrics[0]].n]
        turn = 1 if metrics[0] in LOWER_IS_BETTER else -1
        for row in sorted(measured, key=lambda r: turn * r.estimates[metrics[0]].mean):
            cells = []
            for metric in metrics:
                standing = row.standings.get(metric)
                own_truth = row.reference and metric in OF_REFERENCE
                mark = standing.groups if standing else "reference" if own_truth else ""
                cells.append(f"{estimate_text(row.estimates[metric])} {mark}".rstrip())
            cost = [row.estimates[name].mean for name in ("forward-equivalents", "seconds")]
            numbers = [
                "-" if math.isnan(one) else f"{one:.{digits}f}"
                for one, digits in zip(cost, (1, 2), strict=True)
            ]
            lines.append([row.method, *cells, *numbers])
        missing = [row.method for row in found.rows if not row.estimates[metrics[0]].n]
        parts += ["", aligned(lines)]
        if missing:
            parts += [fill(f"not measured: {', '.join(missing)}", 104, subsequent_indent="  ")]
    notes = [
        f"{options.steps} evenly spaced steps, of methods and metrics alike; intervals: bootstrap "
        "over images; forward-eq. and seconds are a mean image's maps, all words",
        "rows that share a letter can't be told apart (paired sign-flip permutation tests over "
        f"images, Holm's correction within a metric, {ALPHA:.0%} family-wise)",
    ]
    measured_groups = {name for name, of in GROUPS.items() if of[0] in found.metrics}
    if measured_groups & {"order", "infidelity"}:
        notes.append(
            "order and infidelity ask for the very target that gradient and perturbation methods "
            "explain: of attention they say how far it tells of it"
        )
    if "order" in measured_groups:
        notes.append("order is over the shape nouns' regions")
    if "removal" in measured_groups:
        notes.append("removal is over every word that has a mask")
    if "sensitivity" in measured_groups:
        notes.append("sensitivity says nothing by itself: maps that never change have 0")
    if any(row.method.startswith("shuffled-word.") for row in found.rows):
        notes.append(
            "shuffled-word gives each word the map of a word of another object, or, where a word "
            "has none, the next word's (removal leaves that one out)"
        )
    if found.width is not None:
        notes.append(
            f"the centre's width, {found.width:g}, was chosen on {options.calibration} calibration "
            "images"
        )
    return "\n".join([*parts, "", *(fill(note, 104, subsequent_indent="  ") for note in notes)])
