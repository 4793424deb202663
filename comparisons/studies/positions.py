"""A study of how much of a method's answer falls to the words, and how much to positions that are
no word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wordlight.attribution.maps import AttributionMaps
from wordlight.attribution.words import Word
from wordlight.backends.backend import Backend
from wordlight.comparisons.datasets.images.generated_scenes import BATCH, GeneratedScenes
from wordlight.comparisons.results.finished_run import FinishedRun
from wordlight.comparisons.results.text_tables import aligned
from wordlight.comparisons.runs.options import PATH, option, options
from wordlight.comparisons.stats.intervals import Estimate, mean_over_words
from wordlight.comparisons.studies.results import estimate_data, estimate_text
from wordlight.comparisons.studies.study import (
    Study,
    methods_named,
    number_of,
    seed_of,
    steps_looked_at,
)
from wordlight.comparisons.studies.texts import method_for
from wordlight.comparisons.wording import counted

KINDS = ("<start>", "words", "punctuation", "<end>", "<pad>")


@dataclass(frozen=True)
class PositionShares:
    """One method's shares by kind of position, which sum to one in every image.

    ``of`` says what was shared out.
    """

    method: str
    of: str
    shares: dict[str, Estimate]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        shares = {kind: estimate_data(share) for kind, share in self.shares.items()}
        return {"method": self.method, "of": self.of, "shares": shares}


#: What is shared out, by how a method's maps of tokens become one.
_SHARED = {
    "mean": "the sum over tokens and pixels",
    "sum": "the sum over tokens and pixels",
    "root-sum-square": "the sum of squares over tokens and pixels",
}


def study_positions(
    backend: Backend,
    methods: Sequence[str],
    *,
    n: int,
    steps: int = 4,
    seed: int = 0,
    on_image: Callable[[int], object] = lambda count: None,
) -> tuple[PositionShares, ...]:
    """Shares of the words, of punctuation and of the special positions.

    The whole context is shared out: attention's rows sum to one over it, and complete methods' maps
    (integrated gradients, Shapley values) sum to the target, so that a negative share pushes
    against it. Of slopes (saliency) the squares are shared out.

    Args:
        backend: the model.
        methods: names of registered methods.
        n: the number of images of the test split, see ``GeneratedScenes``.
        steps: the number of evenly spaced steps that methods look at.
        seed: of the images' noise.
        on_image: called with how many pairs of method and image were done.

    Raises:
        ValueError, KeyError: bad numbers, a method that isn't there.
    """
    attributors = {name: method_for(backend, name, steps) for name in methods}
    scenes = GeneratedScenes(backend, "test", n, seed)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    for start in range(0, n, BATCH):
        for trajectory in scenes.draw(start):
            for name, attributor in attributors.items():
                found[name].append(shares(attributor.attribute(trajectory)))
                on_image(1)
    return tuple(
        PositionShares(
            name,
            _SHARED[attributors[name].merge],
            {
                kind: mean_over_words(scenes.samples, [one[kind] for one in images])
                for kind in KINDS
            },
        )
        for name, images in found.items()
    )


def positions_of_run(
    folder: Path,
    methods: Sequence[str],
    *,
    on_image: Callable[[int], object] = lambda count: None,
) -> tuple[str, int, tuple[PositionShares, ...]]:
    """Return the shares from the maps that a finished comparison has kept.

    Args:
        folder: of the comparison.
        methods: names of its rows.
        on_image: called with how many pairs of row and image were done.

    Returns:
        The model's name, how many images, and the shares.

    Raises:
        ValueError: a folder without a finished comparison, a row that it hasn't, maps that aren't
            kept or are damaged.
    """
    run = FinishedRun.read(folder)
    rows = {row.name: row for row in run.rows if not row.shuffled}
    samples = sorted(set(run.words.column("sample").to_pylist()))
    found = []
    for name in methods:
        if name not in rows:
            raise ValueError(f"{folder} has no row {name!r}; it has {', '.join(rows)}")
        images, merge = [], ""
        for sample in samples:
            path = run.maps_path(rows[name], sample)
            if not path.is_file():
                raise ValueError(f"{folder} hasn't kept the maps of {name}: there is no {path}")
            maps = AttributionMaps.load(path)
            merge = maps.merge
            images.append(shares(maps))
            on_image(1)
        found.append(
            PositionShares(
                name,
                _SHARED[merge],
                {kind: mean_over_words(samples, [one[kind] for one in images]) for kind in KINDS},
            )
        )
    return str(run.settings.get("model", "")), len(samples), tuple(found)


def shares(maps: AttributionMaps) -> dict[str, float]:
    """The share of each of ``KINDS`` in one image's maps.

    Raises ValueError for maps that sum to nothing.
    """
    totals = dict.fromkeys(KINDS, 0.0)
    for player, values in zip(maps.players, maps.data.values.astype(np.float64), strict=True):
        if maps.merge == "root-sum-square":
            values = np.square(values)
        elif maps.merge == "mean":
            values = values * len(player.tokens)
        totals[kind_of(player)] += float(values.sum())
    whole = sum(totals.values())
    if whole == 0:
        raise ValueError("the maps sum to nothing: there is nothing to share out")
    return {kind: total / whole for kind, total in totals.items()}


def kind_of(player: Word) -> str:
    """Return a player's kind, one of ``KINDS``."""
    if not player.is_text:
        return player.text
    return "words" if any(c.isalnum() for c in player.text) else "punctuation"


@dataclass(frozen=True)
class PositionsStudy:
    """The shares of several methods, and of what: ``asked`` is plain data."""

    model: str
    n: int
    asked: dict[str, Any]
    methods: tuple[PositionShares, ...]

    @property
    def text(self) -> str:
        lines = [["method", *KINDS, "shares of"]]
        for one in self.methods:
            lines.append([one.method, *(estimate_text(one.shares[k], 2) for k in KINDS), one.of])
        title = f"{self.model}, {counted(self.n, 'image')}: shares by kind of position"
        return f"{title}\n\n{aligned(lines)}"

    def to_json(self) -> dict[str, Any]:
        methods = [one.to_json() for one in self.methods]
        return {"model": self.model, "n": self.n, **self.asked, "methods": methods}


_DEFAULT = ("daam", "integrated-gradients")


@options
class Positions(Study):
    """The study as a command."""

    name = "positions"
    line = "what falls to words, and what to <end> and <pad>"
    epilog = """\
A prompt's context has more positions than words: <start>, <end>, and <pad> for the rest. The text
encoder writes into them too, and the denoiser reads them. This shares each method's answer out
between the words, punctuation and those positions; a complete method's shares may be negative.

examples:
  wordlight study positions -n 32 --method daam --method shapley -o out/positions
  wordlight study positions --run out/compare --method daam -o out/positions
"""

    method: Sequence[str] | None = methods_named(" and ".join(_DEFAULT))
    finished: Path | None = option(
        PATH,
        "a comparison whose maps are used, without a model: -n, --steps, --seed, --model and its "
        "options are then the comparison's",
        default=None,
        flags=("--run",),
        metavar="FOLDER",
    )
    n: int = number_of("images", 16)
    steps: int = steps_looked_at()
    seed: int = seed_of()

    def check(self) -> None:
        # A run's rows have names of their own.
        if self.finished is None:
            super().check()

    def find(self) -> PositionsStudy:
        methods = list(dict.fromkeys(self.method or _DEFAULT))
        if self.finished is not None:
            with self.bar("sharing out", None, "maps") as bar:
                model, n, found = positions_of_run(self.finished, methods, on_image=bar.update)
            return PositionsStudy(model, n, {"run": str(self.finished)}, found)
        backend = self.load()
        with self.bar("sharing out", len(methods) * self.n, "maps") as bar:
            found = study_positions(
                backend,
                methods,
                n=self.n,
                steps=self.steps,
                seed=self.seed,
                on_image=bar.update,
            )
        asked = {"steps": self.steps, "seed": self.seed}
        return PositionsStudy(backend.model_id, self.n, asked, found)
