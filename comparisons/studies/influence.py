"""A study of how much of an image the words of each part of speech take up, in maps and in fact."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from wordlight.attribution.maps import AttributionMaps
from wordlight.attribution.methods.noise_difference import without
from wordlight.attribution.words import PromptWords, Word
from wordlight.backends.backend import Backend
from wordlight.comparisons.datasets.tagged_text import TaggedText
from wordlight.comparisons.metrics.shown_map import ShownMap
from wordlight.comparisons.results.text_tables import aligned
from wordlight.comparisons.runs.options import options
from wordlight.comparisons.stats.intervals import SHARE, Estimate, mean_over_words
from wordlight.comparisons.studies.results import estimate_data, estimate_text
from wordlight.comparisons.studies.texts import (
    THE_PAPER,
    StudyTexts,
    TextFindings,
    TextStudy,
    draw,
    method_for,
    place_words,
)

#: Where the paper's first version cuts a map that runs from 0 to 1.
THRESHOLD = 0.4
#: A pixel has changed when its colour has by more than this share of the way from black to white.
CHANGED = 0.1
#: Mean share of pixels above 0.4 by part of speech: arXiv 2210.04885v1, as its authors' plotting
#: script has it (`run/plot_pos.py`, castorini/daam, commit 01d35db). Stable Diffusion 1.4, captions
#: of COCO, tags of spaCy's `en_core_web_trf`.
PAPER_SPREAD = {
    "PUNCT": 0.4465,
    "CCONJ": 0.3687,
    "ADP": 0.3188,
    "VERB": 0.2969,
    "ADV": 0.2925,
    "ADJ": 0.2886,
    "NOUN": 0.2879,
    "PRON": 0.2788,
    "DET": 0.1942,
    "NUM": 0.1585,
}


@dataclass(frozen=True)
class ClassInfluence:
    """One part of speech.

    Attributes:
        tag: of Universal Dependencies.
        spread: over words, the share of pixels where the map, from 0 to 1, is at least 0.4.
        words_out: the number of words of it in an image's prompt, on average where it has any.
        changed: over images, the share of pixels that change when all of them are taken out at the
            same noise.
        change: the mean change of a pixel, 0 to 1.
        paper: the spread that the paper found, or None.
    """

    tag: str
    spread: Estimate
    words_out: float
    changed: Estimate
    change: Estimate
    paper: float | None


@dataclass(frozen=True, kw_only=True)
class InfluenceStudy(TextFindings):
    """The findings.

    Attributes:
        classes: by spread, the largest first.
        other_noise: ``changed`` and ``change`` of the same prompt drawn from other noise: how
            different two images of one prompt are.
    """

    classes: tuple[ClassInfluence, ...]
    other_noise: tuple[Estimate, Estimate]

    def rank_correlation(self, one: str, other: str) -> tuple[float, int]:
        """Spearman's correlation of two of ``spread``, ``changed`` and ``paper`` over the parts of
        speech that have both, and of how many; nan for fewer than three."""

        def value(found: ClassInfluence, name: str) -> float:
            there = getattr(found, name)
            if there is None:
                return np.nan
            return float(there.mean) if isinstance(there, Estimate) else float(there)

        pairs = np.array([[value(c, one), value(c, other)] for c in self.classes]).reshape(-1, 2)
        pairs = pairs[np.isfinite(pairs).all(axis=1)]
        if len(pairs) < 3 or (np.ptp(pairs, axis=0) == 0).any():
            return np.nan, len(pairs)
        return float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic), len(pairs)

    @property
    def text(self) -> str:
        return table(self)

    def to_json(self) -> dict[str, Any]:
        """Plain data; what can't be estimated is null."""
        return {
            **self.facts(),
            "threshold": THRESHOLD,
            "changed_from": CHANGED,
            "classes": [
                {
                    "tag": c.tag,
                    "spread": estimate_data(c.spread),
                    "words_out": c.words_out,
                    "changed": estimate_data(c.changed),
                    "change": estimate_data(c.change),
                    "paper_spread": c.paper,
                }
                for c in self.classes
            ],
            "other_noise": {
                "changed": estimate_data(self.other_noise[0]),
                "change": estimate_data(self.other_noise[1]),
            },
        }


def study_influence(
    backend: Backend,
    texts: StudyTexts,
    *,
    method: str = "daam",
    steps: int = 4,
    seed: int = 0,
    on_image: Callable[[int], object] = lambda count: None,
) -> InfluenceStudy:
    """The influence of parts of speech: the paper's measure, and what really changes.

    The paper's is the share of an image's pixels where a word's map, min-max normalised, is at
    least 0.4 (Tang et al., arXiv 2210.04885, first version). It says how far a map spreads, not
    what the word does; so beside it stands how much of the image changes when all words of the
    class are taken out of the prompt and it is drawn again from the same noise.

    Args:
        backend: the model.
        texts: tagged prompts.
        method: the name of a registered method.
        steps: the number of evenly spaced steps it looks at.
        seed: of the other noise.
        on_image: called with how many images are done.

    Raises:
        ValueError: texts that give a word no part of speech.
        ValueError, KeyError: a method that isn't there.
        MissingCapabilityError: a model that the method needs more of.
    """
    for text in texts.texts:
        for token in text.tokens:
            if token.tag in ("", "_"):
                raise ValueError(
                    f"{texts.source} give {token.text!r} in {text.text!r} no part of speech"
                )
    attributor = method_for(backend, method, steps)
    spreads = Spreads()
    changes: dict[str, _Changes] = {}
    words_out: dict[str, list[int]] = {}
    noise = _Changes()
    drawn = draw(backend, [text.text for text in texts.texts], texts.seeds)
    for sample, text, image_seed, trajectory in zip(
        texts.samples, texts.texts, texts.seeds, drawn, strict=True
    ):
        words = PromptWords.of(trajectory.tokens)
        placed = spreads.add(sample, text, attributor.attribute(trajectory))
        of_class: dict[str, list[int]] = {}
        for index in placed:
            of_class.setdefault(text.tokens[index].tag, []).append(index)
        shorter: dict[str, str] = {}
        for tag, indices in of_class.items():
            group = words.find([slice(placed[i].start, placed[i].stop) for i in indices])
            left = without(text.text, group)
            if left:
                shorter[tag] = left
                words_out.setdefault(tag, []).append(len(indices))
        # The last is the whole prompt at other noise.
        other_seed = int(np.random.SeedSequence((seed, image_seed)).generate_state(1)[0])
        again = draw(
            backend,
            [*shorter.values(), text.text],
            [*[image_seed] * len(shorter), other_seed],
        )
        for tag, one in zip(shorter, again, strict=False):
            changes.setdefault(tag, _Changes()).add(sample, trajectory.image, one.image)
        noise.add(sample, trajectory.image, again[-1].image)
        on_image(1)

    def of(tag: str, spread: Estimate) -> ClassInfluence:
        changed, change = changes.get(tag, _Changes()).means
        return ClassInfluence(
            tag=tag,
            spread=spread,
            words_out=float(np.mean(words_out[tag])) if tag in words_out else 0.0,
            changed=changed,
            change=change,
            paper=PAPER_SPREAD.get(tag),
        )

    return InfluenceStudy(
        model=backend.model_id,
        method=attributor.name,
        source=texts.source,
        images=len(texts),
        steps=steps,
        seed=seed,
        classes=tuple(of(tag, spread) for tag, spread in spreads.by_class.items()),
        other_noise=noise.means,
        not_placed=spreads.not_placed,
    )


class _Changes:
    """Changes of images, gathered image by image."""

    def __init__(self) -> None:
        self._samples: list[str] = []
        self._changes: list[tuple[float, float]] = []

    def add(self, sample: str, one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> None:
        self._samples.append(sample)
        self._changes.append(image_change(one, other))

    @property
    def means(self) -> tuple[Estimate, Estimate]:
        """The mean share of changed pixels, and the mean change."""
        shares, changes = zip(*self._changes, strict=True) if self._changes else ((), ())
        return (
            mean_over_words(self._samples, shares, bounds=SHARE),
            mean_over_words(self._samples, changes, bounds=SHARE),
        )


class Spreads:
    """Spreads of the maps of each part of speech, gathered image by image."""

    def __init__(self) -> None:
        self.not_placed = 0
        self._values: dict[str, tuple[list[str], list[float]]] = {}

    def add(self, sample: str, text: TaggedText, maps: AttributionMaps) -> dict[int, Word]:
        """Add the maps of an image; gives the words that have one, by their tokens' indices."""
        placed = place_words(text, PromptWords.of(maps.tokens))
        self.not_placed += len(text.tokens) - len(placed)
        for index, word in placed.items():
            samples, values = self._values.setdefault(text.tokens[index].tag, ([], []))
            samples.append(sample)
            values.append(float(ShownMap(maps.at(word)).mask(THRESHOLD).mean()))
        return placed

    @property
    def by_class(self) -> dict[str, Estimate]:
        """The mean spread of each part of speech, the largest first."""
        means = {
            tag: mean_over_words(*values, bounds=SHARE) for tag, values in self._values.items()
        }
        return dict(sorted(means.items(), key=lambda one: (-one[1].mean, one[0])))


def image_change(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """The share of pixels that differ by more than 0.1, and the mean difference, 0 to 1.

    A pixel's is the root of its channels' mean squared difference, from black to white 1.
    """
    away = pixel_change(one, other)
    return float((away > CHANGED).mean()), float(away.mean())


def pixel_change(
    one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float64]:
    """Return the change of each pixel's colour, ``(height, width)``: 0 for none, 1 for from black
    to white."""
    difference = (one.astype(np.float64) - other) / 255.0
    away: npt.NDArray[np.float64] = np.sqrt(np.square(difference).mean(axis=-1))
    return away


def table(found: InfluenceStudy) -> str:
    """The study as text."""
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
    return found.report(
        aligned(lines, extra=1),
        f"share >= {THRESHOLD:g}: of pixels, where a word's map is at least so high, once it runs "
        "from 0 to 1",
        "taken out: all words of the class, as many as stand there on average",
        f"pixels changed: by more than {CHANGED:g} of the way from black to white, at the same "
        "noise",
        "other noise: the whole prompt drawn once more from other noise, to compare with",
        f"paper: {THE_PAPER}v1; Stable Diffusion 1.4 on captions of COCO",
        f"rank correlation of the shares with the paper's: {_signed(with_paper)} over {of_paper} "
        f"parts of speech; with pixels changed: {_signed(with_fact)} over {of_fact}",
    )


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.2f}"


@options
class Influence(TextStudy):
    """The study as a command."""

    name = "influence"
    line = "how much of an image words of each part of speech take up"
    epilog = """\
Two answers for each part of speech, which need not agree. How far its words' maps spread: the
share of pixels at 0.4 or more once a map runs from 0 to 1, averaged over words, as in the first
version of the paper of DAAM, whose figures stand beside (another model, other prompts). And what
its words do: how much of the image changes when all of them are taken out of the prompt and it is
drawn again from the same noise. Intervals are 95 %, by t over images.

examples:
  wordlight study influence -n 16 -o out/influence
  wordlight study influence --model path/to/model --conllu captions.conllu -n 100 -o out/influence
"""

    def find(self) -> InfluenceStudy:
        backend = self.load()
        texts = self.texts(backend)
        with self.bar("taking words out", len(texts), "images") as bar:
            return study_influence(
                backend,
                texts,
                method=self.method,
                steps=self.steps,
                seed=self.seed,
                on_image=bar.update,
            )
