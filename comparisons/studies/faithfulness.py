"""A study of whether maps say what the model does: a comparison by the metrics of faithfulness."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from textwrap import fill
from typing import Any, ClassVar, Self

from wordlight.attribution.methods.controls import Center
from wordlight.comparisons.results.comparison import Comparison
from wordlight.comparisons.results.table import metric_notes, model_tables, of_model
from wordlight.comparisons.results.text_tables import aligned
from wordlight.comparisons.rows.row import DEFAULT_METHODS, SHUFFLED
from wordlight.comparisons.runner import compare
from wordlight.comparisons.runs.options import (
    PATH,
    TEXTS,
    number,
    option,
    options,
    whole,
)
from wordlight.comparisons.runs.plan import Arguments
from wordlight.comparisons.stats.intervals import Estimate
from wordlight.comparisons.stats.paired_tests import ALPHA
from wordlight.comparisons.store.cells import COST_METRICS
from wordlight.comparisons.studies.results import estimate_data, write_study
from wordlight.comparisons.studies.study import number_of
from wordlight.comparisons.wording import counted

NAME = "faithfulness"
#: What can be asked for, in the order of the tables.
GROUPS = ("order", "removal", "infidelity", "sensitivity")
#: Whose options they are.
_OPTIONS = {"infidelity": ("sets",), "sensitivity": ("perturbations", "radius")}
_NUMBERS = ("steps", "calibration", "sets", "perturbations", "radius", "seed")
_WIDTH = 104


@options
class Faithfulness(Arguments):
    """The study as a command: a comparison by its metrics, with options for them."""

    name: ClassVar[str] = NAME
    line: ClassVar[str] = "whether methods' maps say what the model does without a word"
    epilog: ClassVar[str] = """\
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
    left_out: ClassVar[tuple[str, ...]] = ("metrics",)

    groups: Sequence[str] = option(
        replace(TEXTS, flag={"action": "append", "choices": GROUPS}),
        "a metric, repeatable (default: all of them)",
        default=GROUPS,
        flags=("--metric",),
    )
    n: int = number_of("images", 8)
    steps: int = option(
        whole(1),
        "the number of evenly spaced denoising steps, for methods and for metrics",
        default=4,
        metavar="N",
        identity=True,
    )
    sets: int = option(
        whole(1), "infidelity: the number of random sets of words an image", default=16, metavar="N"
    )
    perturbations: int = option(
        whole(1), "sensitivity: the number of perturbations an image", default=2, metavar="N"
    )
    radius: float = option(
        replace(number(), strict=False),
        "sensitivity: the largest perturbation, in root mean squares of the embeddings",
        default=0.02,
        metavar="R",
    )
    out: str | Path | None = option(  # type: ignore[assignment]  # none is kept for None
        PATH,
        "the folder that keeps the run (cells, maps, images, tables, a page), with the numbers "
        f"({NAME}.json) and the tables ({NAME}.txt) of the study",
        default=None,
        flags=("-o", "--out"),
        metavar="FOLDER",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.radius < math.inf:
            raise ValueError(f"radius must be above 0, not {self.radius}")
        if unknown := sorted(set(self.groups) - set(GROUPS)):
            raise ValueError(f"no metric {unknown[0]!r}; there are {', '.join(GROUPS)}")

    @classmethod
    def asked(cls, arguments: argparse.Namespace, *, progress: bool, command: str) -> Self:
        """The study that a command line asks for; ``command`` is what was typed."""
        return cls(**cls.typed(arguments), progress=progress, command=command)

    @property
    def chosen(self) -> list[Mapping[str, Any]]:
        """The metrics, as ``compare`` takes them."""
        return [
            {"metric": group, **{name: getattr(self, name) for name in _OPTIONS.get(group, ())}}
            for group in GROUPS
            if group in self.groups
        ]

    def run(self) -> FaithfulnessStudy:
        """Do the study, and write what was found into its folder, if it has one."""
        kept = self.out
        with tempfile.TemporaryDirectory() if kept is None else nullcontext(kept) as out:
            found = _found(self, Path(out))
        if kept is not None:
            write_study(Path(kept), NAME, found.to_json(), found.text)
        return found


@dataclass(frozen=True, eq=False)
class FaithfulnessStudy:
    """A comparison by these metrics, as the study prints it."""

    comparison: Comparison
    options: Faithfulness

    @property
    def width(self) -> float | None:
        """The centre's, as the calibration split chose it; None where there is no centre."""
        choice = self.comparison.choices.get(Center.name)
        return None if choice is None else choice.variant.options.get("width")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        found = self.comparison
        rows = {row.name: row for row in found.table_rows}
        return {
            "model": found.facts.model_id,
            "images": found.facts.n,
            "words": found.facts.words,
            "options": {name: getattr(self.options, name) for name in _NUMBERS},
            "center_width": self.width,
            "rows": [
                {
                    "method": name,
                    "control": row.family == "control",
                    "reference": row.shows("regeneration"),
                    "metrics": self._metrics(name),
                }
                for name, row in rows.items()
            ],
            "tests": {name: [asdict(one) for one in of] for name, of in found.tests.items()},
        }

    def _metrics(self, method: str) -> dict[str, Any]:
        none = Estimate(math.nan, math.nan, math.nan, 0)
        metrics = [metric.name for metric in self.comparison.metrics if metric.over != "cost"]
        found: dict[str, Any] = {}
        for name in (*metrics, *COST_METRICS):
            estimate, standing = none, None
            if self.comparison.has(method, name):
                result = self.comparison.result(method, name)
                estimate, standing = result.estimate, result.standing
            found[name] = estimate_data(estimate) | (asdict(standing) if standing else {})
        return found

    @property
    def text(self) -> str:
        """The tables, for a terminal."""
        found, options = self.comparison, self.options
        facts = found.facts
        title = (
            f"Do maps say what the model does? {counted(facts.n, 'test image')} drawn by "
            f"{facts.model_id}, "
            f"{facts.words} shape nouns in images of two or more objects"
        )
        parts = [fill(title, _WIDTH)]
        for table in model_tables(found):
            lines, missing = of_model(found, table, lambda row: row.name)
            parts += ["", aligned(lines)]
            if missing:
                parts.append(_filled(f"not measured: {', '.join(missing)}"))
        notes = [
            f"{options.steps} evenly spaced steps, of methods and metrics alike; intervals: "
            "t over images; forward-eq. and seconds are a mean image's maps, all words",
            "rows that share a letter can't be told apart (paired sign-flip permutation tests over "
            f"images, Holm's correction within a metric, {ALPHA:.0%} family-wise)",
            *metric_notes(found),
        ]
        if any(row.shuffled for row in found.table_rows):
            notes.append(
                "shuffled-word gives each word the map of a word of another object, or, where a "
                "word has none, the next word's (removal leaves that one out)"
            )
        if self.width is not None:
            notes.append(
                f"the centre's width, {self.width:g}, was chosen on {options.calibration} "
                "calibration images"
            )
        notes += [f"{name}: not measured: {why}" for name, why in facts.unmeasured]
        notes += [f"{name}: not measured: {why}" for name, why in facts.not_measured]
        if found.failures:
            notes.append(
                f"{counted(len(found.failures), 'cell')} failed, whose images are left out of "
                f"their rows; the "
                "same command tries them again"
            )
        return "\n".join([*parts, "", *map(_filled, notes)])


def _filled(text: str) -> str:
    return fill(text, _WIDTH, subsequent_indent="  ")


def _found(asked: Faithfulness, out: Path) -> FaithfulnessStudy:
    wanted = DEFAULT_METHODS if asked.methods is None else asked.methods
    given = {one.name: getattr(asked, one.name) for one in fields(Arguments)}
    given |= {"metrics": asked.chosen, "out": out}
    if not isinstance(wanted, str | Mapping):
        # With options, even none, a name is one row: DAAM over all steps isn't added.
        given["methods"] = [
            {"method": one} if isinstance(one, str) and one != SHUFFLED else one for one in wanted
        ]
    return FaithfulnessStudy(compare(**given), asked)
