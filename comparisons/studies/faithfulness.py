"""Whether maps say what the model does: words are taken out, and embeddings changed a little."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import wordlight
from wordlight.attribution import registry
from wordlight.attribution.attributor import TextImageAttributor
from wordlight.attribution.maps import AttributionMaps
from wordlight.attribution.methods.controls import Center
from wordlight.attribution.methods.regeneration import Regeneration
from wordlight.attribution.words import Word
from wordlight.backends.backend import Backend
from wordlight.comparisons.datasets import DatasetItem
from wordlight.comparisons.datasets.images.generated_scenes import GeneratedScenes
from wordlight.comparisons.metrics.ceiling import mask_on_grid
from wordlight.comparisons.metrics.faithfulness_infidelity import Infidelity, random_sets
from wordlight.comparisons.metrics.faithfulness_order import Deletion, Insertion
from wordlight.comparisons.metrics.faithfulness_removal import RemovalCorrelation, RemovalIoU
from wordlight.comparisons.metrics.faithfulness_sensitivity import Sensitivity, nearby
from wordlight.comparisons.metrics.metric import Metric
from wordlight.comparisons.metrics.registry import threshold_curve
from wordlight.comparisons.metrics.word_game import Maps, WordGame
from wordlight.comparisons.rows.calibration import choose
from wordlight.comparisons.rows.entries import (
    CALIBRATED,
    DEFAULT_METHODS,
    SHUFFLED,
    build_entries,
    step_options,
)
from wordlight.comparisons.rows.map_sources import LiveMaps
from wordlight.comparisons.runs.scoring import cost_of, partner
from wordlight.comparisons.stats.intervals import Estimate
from wordlight.comparisons.stats.paired_tests import PairedTest, Standing, paired_tests, standings
from wordlight.comparisons.store.cells import COST_METRICS, CellFolder, Score
from wordlight.comparisons.store.output_folder import claimed
from wordlight.comparisons.store.settings_file import holds_same_run, write_settings
from wordlight.comparisons.studies.results import estimate_data

#: What can be asked for, and the metrics that it gives.
GROUPS = {
    "order": ("deletion", "insertion"),
    "removal": ("removal-rank", "removal-iou"),
    "infidelity": ("infidelity", "infidelity@best-scale"),
    "sensitivity": ("sensitivity",),
}
LOWER_IS_BETTER = frozenset({"deletion", "infidelity", "infidelity@best-scale", "sensitivity"})
REFERENCE = Regeneration.name
#: Metrics whose truth the reference is.
OF_REFERENCE = frozenset(GROUPS["removal"])
#: Primitives of methods that read the prompt's text, or draw anew, whatever the embeddings are.
_READS_TEXT = frozenset({"encode", "encode_from", "sample"})


@dataclass(frozen=True)
class FaithfulnessOptions:
    """How it is measured.

    Attributes:
        steps: evenly spaced denoising steps, of methods and metrics alike.
        sets: random sets of words an image, for infidelity.
        perturbations, radius: how many other embeddings an image, for sensitivity, and how far at
            most, as a share of the embeddings' root mean square.
        calibration: on how many images of the calibration split the centre's width is chosen.
        seed: of the images' noise, the sets, the perturbations and the resampling.
    """

    steps: int = 4
    calibration: int = 16
    sets: int = 16
    perturbations: int = 2
    radius: float = 0.02
    seed: int = 0


@dataclass(frozen=True)
class FaithfulnessRow:
    """One method: its estimates by metric, and where it stands by each."""

    method: str
    control: bool
    reference: bool
    estimates: dict[str, Estimate]
    standings: dict[str, Standing]


@dataclass(frozen=True)
class FaithfulnessStudy:
    """What was found: a row a method, and the tests between them by metric.

    ``width`` is the centre's, as the calibration split chose it; None where there is no centre.
    """

    model: str
    images: int
    words: int
    options: FaithfulnessOptions
    metrics: tuple[str, ...]
    rows: tuple[FaithfulnessRow, ...]
    tests: dict[str, tuple[PairedTest, ...]]
    width: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "model": self.model,
            "images": self.images,
            "words": self.words,
            "options": asdict(self.options),
            "center_width": self.width,
            "rows": [
                {
                    "method": row.method,
                    "control": row.control,
                    "reference": row.reference,
                    "metrics": {
                        name: estimate_data(estimate)
                        | (asdict(row.standings[name]) if name in row.standings else {})
                        for name, estimate in row.estimates.items()
                    },
                }
                for row in self.rows
            ],
            "tests": {name: [asdict(one) for one in tests] for name, tests in self.tests.items()},
        }


@dataclass(frozen=True, eq=False)
class _Row:
    """A method whose maps are judged; of a shuffled one each word has another word's map."""

    name: str
    attributor: TextImageAttributor
    shuffled: bool = False

    @property
    def control(self) -> bool:
        return self.shuffled or self.attributor.family == "control"

    def settings(self) -> dict[str, Any]:
        found = {**LiveMaps(self.attributor).settings(), "shuffled": self.shuffled}
        if self.name in CALIBRATED:
            # The calibration images, which are settings too, say what it is.
            found[CALIBRATED[self.name][0]] = "calibrated"
        return found

    def seen(self, maps: AttributionMaps, item: DatasetItem) -> AttributionMaps:
        return shuffled_words(maps, item) if self.shuffled else maps


def study_faithfulness(
    backend: Backend,
    methods: Sequence[str] | None = None,
    *,
    out: Path,
    n: int = 8,
    groups: Iterable[str] = tuple(GROUPS),
    options: FaithfulnessOptions | None = None,
    scheduler: str | None = None,
    on_cell: Callable[[int], object] = lambda count: None,
) -> FaithfulnessStudy:
    """Hold methods' maps against what the model does without words, and from other embeddings.

    Images are those that the model draws of the test split of ``scenes``. Each pair of method and
    image is a cell that is kept when it is done: stopped, a study goes on where it was.

    Args:
        backend: the model.
        methods: names of registered methods; those of ``compare`` for None. ``"shuffled-word"``
            adds a row of other words' maps for each that is no control.
        out: the folder of cells, maps and images.
        n: how many images.
        groups: what is measured, of ``GROUPS``.
        options: how.
        scheduler: with which the model was loaded, where it isn't its own: another study's folder.
        on_cell: called with how many cells were done.

    Raises:
        ValueError: an unknown method or group, a bad number, a folder with another study; a centre
            whose width can't be chosen, since no calibration image shows two objects.
        MissingCapabilityError: a backend that can't take words out or draw anew.
    """
    options = options or FaithfulnessOptions()
    asked = tuple(group for group in GROUPS if group in set(groups))
    if unknown := sorted(set(groups) - set(GROUPS)):
        raise ValueError(f"no metric {unknown[0]!r}; there are {', '.join(GROUPS)}")
    _check(options)
    rows = _rows(backend, methods, options.steps, asked)
    scenes = GeneratedScenes(backend, "test", n, options.seed)
    settings = {
        "study": "faithfulness",
        "wordlight": wordlight.__version__,
        "model": backend.model_id,
        "revision": backend.revision,
        "framework": backend.framework,
        "device": backend.device,
        "dtype": backend.dtype,
        "images": scenes.identity(),
        "n": n,
        "groups": list(asked),
        "options": asdict(options),
        "methods": {row.name: row.settings() for row in rows},
    }
    if scheduler is not None:
        settings["scheduler"] = scheduler
    with claimed(out):
        if not holds_same_run(out, settings):
            scenes.first_batch[0].at_steps(options.steps)
            write_settings(out, settings)
    width = None
    if any(row.name == Center.name for row in rows):
        tuning = GeneratedScenes(backend, "calibration", options.calibration, options.seed)
        width = center_width(backend, tuning.stream(out / "samples"))
        center = Center(backend, width=width)
        rows = [replace(row, attributor=center) if row.name == Center.name else row for row in rows]
    cells = CellFolder(out, backend.framework)
    scores: dict[str, list[Score]] = {row.name: [] for row in rows}
    words = 0
    for item in scenes.stream(out / "samples"):
        words += sum(scored.headline for scored in item.words)
        subject = _Subject(backend, item, cells, options)
        for row in rows:
            scores[row.name] += _cell(subject, row, asked)
            on_cell(1)
    metrics = tuple(metric for group in asked for metric in GROUPS[group])
    tests = {metric: _tests(rows, scores, metric, options.seed) for metric in metrics}
    return FaithfulnessStudy(
        model=backend.model_id,
        images=n,
        words=words,
        options=options,
        metrics=metrics,
        rows=_summary(rows, scores, metrics, tests, options.seed),
        tests=tests,
        width=width,
    )


def rows_of(methods: Sequence[str] | None, groups: Iterable[str]) -> list[str]:
    """The names of the rows that such a study has, without a model.

    Raises ValueError as the study does.
    """
    wanted = list(DEFAULT_METHODS if methods is None else methods)
    names = [name for name in wanted if name != SHUFFLED]
    kinds = {name: registry.get(name) for name in names}
    if SHUFFLED in wanted:
        names += [
            f"{SHUFFLED}.{name}"
            for name, kind in kinds.items()
            if kind.family != "control" and name != REFERENCE
        ]
    if "removal" in groups and REFERENCE not in names:
        names.append(REFERENCE)
    if len(set(names)) < len(names):
        raise ValueError("a method is named twice: name each once")
    if not names:
        raise ValueError("there is nothing to judge: name at least one method")
    return names


def center_width(backend: Backend, items: Iterable[DatasetItem]) -> float:
    """The centre's width that finds the headline words of calibration images best, as a comparison
    chooses it.

    Raises ValueError where there is no such word.
    """
    option, widths = CALIBRATED[Center.name]
    (entry,) = build_entries(backend, [Center.name], {}, 1)
    curves: list[list[Score]] = [[] for _ in entry.variants]
    for item in items:
        headline = [scored for scored in item.words if scored.headline]
        for scores, width in zip(curves, widths if headline else (), strict=bool(headline)):
            maps = Center(backend, width=width).attribute(item.trajectory)
            for scored in headline:
                where = (backend.framework, item.sample, Center.name, scored.word.text, 0)
                curve = threshold_curve(maps.at(scored.word), scored.mask)
                scores += [Score(*where, metric, value) for metric, value in curve.items()]
    return float(choose(entry, curves).variant.options[option])


def shuffled_words(maps: AttributionMaps, item: DatasetItem) -> AttributionMaps:
    """The same maps, each word's that of a word of another object, as in a comparison; a word that
    has none (articles, the ground, of an image with one object) has the next word's."""
    places = [index for index, player in enumerate(maps.players) if player.is_text]
    taken = dict(zip(places, [*places[1:], *places[:1]], strict=True))
    index = {maps.players[place].tokens: place for place in places}
    for scored in item.words:
        other = partner(item, scored)
        if other is not None:
            taken[index[scored.word.tokens]] = index[other.word.tokens]
    data = maps.data.copy(deep=True)
    data.values[list(taken)] = maps.data.values[list(taken.values())]
    return AttributionMaps(
        data,
        maps.players,
        maps.tokens,
        maps.image,
        merge=maps.merge,
        signed=maps.signed,
        provenance=maps.provenance,
    )


def _rows(
    backend: Backend, methods: Sequence[str] | None, steps: int, groups: Sequence[str]
) -> list[_Row]:
    rows = []
    for name in rows_of(methods, groups):
        shuffled = name.startswith(f"{SHUFFLED}.")
        kind = registry.get(name.removeprefix(f"{SHUFFLED}."))
        rows.append(_Row(name, kind(backend, **step_options(kind, steps)), shuffled))
    return rows


def _check(options: FaithfulnessOptions) -> None:
    for name in ("steps", "calibration", "sets", "perturbations"):
        if getattr(options, name) < 1:
            raise ValueError(f"{name} must be 1 or more, not {getattr(options, name)}")
    if not 0 < options.radius < math.inf:
        raise ValueError(f"radius must be above 0, not {options.radius}")


class _Subject:
    """One image, with what is asked of its model: for all methods the same, and once."""

    def __init__(
        self, backend: Backend, item: DatasetItem, cells: CellFolder, options: FaithfulnessOptions
    ) -> None:
        self.backend = backend
        self.item = item
        self.cells = cells
        self.options = options
        self.seed = int(
            np.random.SeedSequence([options.seed, *item.sample.encode()]).generate_state(1)[0]
        )

    def maps(self, attributor: TextImageAttributor) -> AttributionMaps:
        path = self.cells.maps_path(self.item.sample, attributor.name)
        return LiveMaps(attributor).maps(self.item, path)

    @cached_property
    def game(self) -> WordGame:
        return WordGame(self.backend, self.item.trajectory, steps=self.options.steps)

    @cached_property
    def regions(self) -> list[tuple[Word, Maps]]:
        grid = self.item.trajectory.grid
        return [
            (scored.word, mask_on_grid(scored.mask, grid).astype(np.float64))
            for scored in self.item.words
            if scored.headline
        ]

    @cached_property
    def changes(self) -> AttributionMaps:
        """What changes in the image when it is drawn without a word."""
        return self.maps(Regeneration(self.backend))


def _cell(subject: _Subject, row: _Row, groups: Sequence[str]) -> list[Score]:
    sample = subject.item.sample
    finished = subject.cells.read(sample, row.name)
    if finished is not None:
        return finished
    maps = subject.maps(row.attributor)
    found: list[tuple[Word | None, str, float | None]] = []
    for group in groups:
        found += _MEASURES[group](subject, row, row.seen(maps, subject.item))
    found += [(None, metric, value) for metric, value in cost_of(maps).items()]
    scores = [
        Score(
            subject.cells.framework,
            sample,
            row.name,
            "" if word is None else word.text,
            -1 if word is None else word.occurrence,
            metric,
            value,
        )
        for word, metric, value in found
        if value is not None
    ]
    subject.cells.write(sample, row.name, scores)
    return scores


_Found = list[tuple[Word | None, str, float | None]]


def _of_words(maps: AttributionMaps, game: WordGame) -> Maps:
    return np.stack([np.asarray(maps.at(word), np.float64) for word in game.words])


def _order(subject: _Subject, row: _Row, maps: AttributionMaps) -> _Found:
    game, sample = subject.game, subject.item.sample
    values = _of_words(maps, game)
    found: _Found = []
    for metric in (Deletion("deletion"), Insertion("insertion")):
        regions = [region for _, region in subject.regions]
        areas = metric.update(sample, game, values, regions, subject.seed)
        found += [
            (word, metric.name, area)
            for (word, _), area in zip(subject.regions, areas, strict=True)
        ]
    return found


def _removal(subject: _Subject, row: _Row, maps: AttributionMaps) -> _Found:
    sample, found = subject.item.sample, _Found()
    for scored in subject.item.words:
        if row.shuffled and partner(subject.item, scored) is None:
            continue
        change = subject.changes.at(scored.word)
        for metric in (RemovalCorrelation("removal-rank"), RemovalIoU("removal-iou")):
            value = metric.update(sample, maps.at(scored.word), change)
            found.append((scored.word, metric.name, value))
    return found


def _infidelity(subject: _Subject, row: _Row, maps: AttributionMaps) -> _Found:
    game = subject.game
    sets = random_sets(len(game.words), subject.options.sets, subject.seed)
    values = _of_words(maps, game)
    metrics = Infidelity("infidelity"), Infidelity("infidelity@best-scale", scale=True)
    return [
        (
            None,
            metric.name,
            metric.update(subject.item.sample, game, values, sets, signed=maps.signed),
        )
        for metric in metrics
    ]


def _sensitivity(subject: _Subject, row: _Row, maps: AttributionMaps) -> _Found:
    # Shuffled maps move as the method's own do.
    if row.shuffled or row.attributor.needs & _READS_TEXT:
        return []
    trajectory, options = subject.item.trajectory, subject.options

    def explain(embeddings: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
        if embeddings is trajectory.embeddings:
            return maps.data.values
        other = row.attributor.attribute(replace(trajectory, embeddings=embeddings))
        return other.data.values

    others = nearby(
        trajectory.embeddings,
        radius=options.radius,
        count=options.perturbations,
        seed=subject.seed,
    )
    metric = Sensitivity("sensitivity")
    value = metric.update(subject.item.sample, explain, trajectory.embeddings, others)
    return [(None, metric.name, value)]


_MEASURES: dict[str, Callable[[_Subject, _Row, AttributionMaps], _Found]] = {
    "order": _order,
    "removal": _removal,
    "infidelity": _infidelity,
    "sensitivity": _sensitivity,
}


def _ranked(row: _Row, metric: str) -> bool:
    return not (row.name == REFERENCE and metric in OF_REFERENCE)


def _tests(
    rows: Sequence[_Row], scores: dict[str, list[Score]], metric: str, seed: int
) -> tuple[PairedTest, ...]:
    values = {
        row.name: {
            (one.sample, (one.word, one.occurrence)): one.value
            for one in scores[row.name]
            if one.metric == metric
        }
        for row in rows
        if _ranked(row, metric)
    }
    return paired_tests({name: of for name, of in values.items() if of}, seed=seed)


def _summary(
    rows: Sequence[_Row],
    scores: dict[str, list[Score]],
    metrics: Sequence[str],
    tests: dict[str, tuple[PairedTest, ...]],
    seed: int,
) -> tuple[FaithfulnessRow, ...]:
    estimates: dict[str, dict[str, Estimate]] = {}
    for row in rows:
        found = {name: Metric(name) for name in (*metrics, *COST_METRICS)}
        for one in scores[row.name]:
            found[one.metric].add(one.sample, one.value)
        estimates[row.name] = {name: metric.compute(seed=seed) for name, metric in found.items()}
    standing: dict[str, dict[str, Standing]] = {row.name: {} for row in rows}
    for metric in metrics:
        higher = metric not in LOWER_IS_BETTER
        means = {
            row.name: estimates[row.name][metric].mean
            for row in rows
            if _ranked(row, metric) and estimates[row.name][metric].n
        }
        order = sorted(means, key=lambda name: -means[name] if higher else means[name])
        of_metric = standings(order, tests[metric], higher_is_better=higher)
        for name, place in of_metric.items():
            standing[name][metric] = place
    return tuple(
        FaithfulnessRow(
            row.name, row.control, row.name == REFERENCE, estimates[row.name], standing[row.name]
        )
        for row in rows
    )
