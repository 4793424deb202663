"""Whether maps say what the model does: a comparison by the metrics of faithfulness."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from wordlight.attribution.methods.controls import Center
from wordlight.backends.backend import Backend
from wordlight.comparisons.results.comparison import Comparison
from wordlight.comparisons.results.table import metric_notes, model_tables, of_model
from wordlight.comparisons.results.text_tables import aligned
from wordlight.comparisons.rows.row import DEFAULT_METHODS, SHUFFLED, Method
from wordlight.comparisons.runner import compare
from wordlight.comparisons.stats.intervals import Estimate
from wordlight.comparisons.stats.paired_tests import ALPHA
from wordlight.comparisons.store.cells import COST_METRICS
from wordlight.comparisons.studies.results import estimate_data

NAME = "faithfulness"
#: What can be asked for, in the order of the tables.
GROUPS = ("order", "removal", "infidelity", "sensitivity")
#: Whose options they are.
_OPTIONS = {"infidelity": ("sets",), "sensitivity": ("perturbations", "radius")}
_WIDTH = 104


@dataclass(frozen=True)
class FaithfulnessOptions:
    """How it is measured.

    Attributes:
        steps: evenly spaced denoising steps, of methods and metrics alike.
        calibration: on how many images of the calibration split the centre's width is chosen.
        sets: random sets of words an image, for infidelity.
        perturbations, radius: how many other embeddings an image, for sensitivity, and how far at
            most, as a share of the embeddings' root mean square.
        seed: of the images' noise, the sets, the perturbations and the resampling.

    Raises:
        ValueError: a number that can't be.
    """

    steps: int = 4
    calibration: int = 16
    sets: int = 16
    perturbations: int = 2
    radius: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "calibration", "sets", "perturbations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if not 0 < self.radius < math.inf:
            raise ValueError(f"radius must be above 0, not {self.radius}")

    def metrics(self, groups: Iterable[str]) -> list[Mapping[str, Any]]:
        """Some groups of metrics, as ``compare`` takes them; raises ValueError for an unknown
        one."""
        wanted = set(groups)
        if unknown := sorted(wanted - set(GROUPS)):
            raise ValueError(f"no metric {unknown[0]!r}; there are {', '.join(GROUPS)}")
        return [
            {"metric": group, **{name: getattr(self, name) for name in _OPTIONS.get(group, ())}}
            for group in GROUPS
            if group in wanted
        ]


@dataclass(frozen=True, eq=False)
class FaithfulnessStudy:
    """A comparison by these metrics, as the study prints it."""

    comparison: Comparison
    options: FaithfulnessOptions

    @property
    def width(self) -> float | None:
        """The centre's, as the calibration split chose it; None where there is no centre."""
        choice = self.comparison.choices.get(Center.name)
        return None if choice is None else choice.variant.options.get("width")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        found = self.comparison
        rows = {row.name: row for row in found.rows}
        return {
            "model": found.facts.model_id,
            "images": found.facts.n,
            "words": found.facts.words,
            "options": asdict(self.options),
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
            f"Do maps say what the model does? {facts.n} test images drawn by {facts.model_id}, "
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
            "bootstrap over images; forward-eq. and seconds are a mean image's maps, all words",
            "rows that share a letter can't be told apart (paired sign-flip permutation tests over "
            f"images, Holm's correction within a metric, {ALPHA:.0%} family-wise)",
            *metric_notes(found),
        ]
        if any(row.shuffled for row in found.rows):
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
                f"{len(found.failures)} cells failed, whose images are left out of their rows; the "
                "same command tries them again"
            )
        return "\n".join([*parts, "", *map(_filled, notes)])


def _filled(text: str) -> str:
    return fill(text, _WIDTH, subsequent_indent="  ")


def study_faithfulness(
    model: Backend | str | Sequence[Backend] = "scenes",
    methods: Sequence[Method] | None = None,
    *,
    out: str | Path,
    n: int = 8,
    groups: Iterable[str] = GROUPS,
    options: FaithfulnessOptions | None = None,
    **further: Any,
) -> FaithfulnessStudy:
    """Hold methods' maps against what the model does without words, and from other embeddings:
    ``compare`` with the metrics of faithfulness.

    Args:
        model: as ``compare`` takes it.
        methods: as ``compare`` takes them; each of the default ones for None. ``"shuffled-word"``
            adds a row of other words' maps for each that is no control. A row of DAAM over all
            steps isn't added.
        out: the folder of cells, maps and images.
        n: how many images.
        groups: what is measured, of ``GROUPS``.
        options: how.
        further: arguments of ``compare``.

    Raises:
        ValueError: as ``compare`` does; an unknown group.
        MissingCapabilityError: a backend that can't take words out or draw anew.
    """
    options = options or FaithfulnessOptions()
    metrics = options.metrics(groups)
    wanted = DEFAULT_METHODS if methods is None else methods
    found = compare(
        model,
        # With options, even none, a name is one row.
        [{"method": one} if isinstance(one, str) and one != SHUFFLED else one for one in wanted],
        out=out,
        n=n,
        metrics=metrics,
        steps=options.steps,
        calibration=options.calibration,
        seed=options.seed,
        **further,
    )
    return FaithfulnessStudy(found, options)
