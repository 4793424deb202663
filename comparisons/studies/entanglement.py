"""A study of words that get into each other's way: cohyponyms, and adjectives that spread.

On images of two coloured shapes, found by their colours, with controls from the same noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from wordlight.attribution.attributor import TextImageAttributor
from wordlight.attribution.maps import AttributionMaps, WordMap
from wordlight.attribution.words import PromptWords
from wordlight.backends.backend import Backend
from wordlight.backends.prompted_data import SCENES, data_of
from wordlight.backends.scenes.grammar import (
    COLOURS,
    GROUNDS,
    SHAPES,
    UNSEEN_PAIRS,
    Group,
    Scene,
    split_of,
)
from wordlight.backends.scenes.segment import Segmentation, segment
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.metrics.shown_map import ShownMap
from wordlight.comparisons.results.text_tables import aligned
from wordlight.comparisons.runs.options import options
from wordlight.comparisons.stats.intervals import SHARE, Estimate, mean_over_words
from wordlight.comparisons.studies.influence import pixel_change
from wordlight.comparisons.studies.relations import overlaps
from wordlight.comparisons.studies.results import estimate_data, estimate_text, notes
from wordlight.comparisons.studies.texts import THE_PAPER, WordStudy, draw, method_for
from wordlight.comparisons.wording import counted

#: Where maps are cut.
THRESHOLD = 0.4

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Finding:
    """One number: what was measured on what."""

    name: str
    condition: str
    estimate: Estimate


@dataclass(frozen=True)
class EntanglementStudy:
    """The findings: of two nouns of one kind, and of colour adjectives.

    ``dropped`` objects aren't in the numbers of adjectives: what was drawn shows no such object, or
    not the other one.
    """

    model: str
    method: str
    images: int
    steps: int
    seed: int
    cohyponyms: tuple[Finding, ...]
    adjectives: tuple[Finding, ...]
    dropped: int

    def estimate(self, name: str, condition: str) -> Estimate:
        """One of the numbers; raises KeyError for one that isn't there."""
        for found in (*self.cohyponyms, *self.adjectives):
            if (found.name, found.condition) == (name, condition):
                return found.estimate
        raise KeyError(f"no {name!r} of {condition!r} here")

    @property
    def text(self) -> str:
        return table(self)

    def to_json(self) -> dict[str, Any]:
        """Plain data; what can't be estimated is null."""

        def rows(found: Sequence[Finding]) -> list[dict[str, Any]]:
            return [
                {"measure": f.name, "condition": f.condition, **estimate_data(f.estimate)}
                for f in found
            ]

        names = ("model", "method", "images", "steps", "seed", "dropped")
        return {
            **{name: getattr(self, name) for name in names},
            "threshold": THRESHOLD,
            "cohyponyms": rows(self.cohyponyms),
            "adjectives": rows(self.adjectives),
        }


#: What is measured, and on what; also the words of the table.
OVERLAP, RIGHT, LOSS = "overlap of the two nouns' maps, IoU", "objects drawn right", "loss"
COHYPONYMS, SAME_NOUN, ALONE = "two kinds of shape", "one kind of shape twice", "each alone"
WITH_GROUND = "a shape and the ground"
FROM_ALONE, FROM_SAME = "from each alone to two kinds", "from one kind twice to two kinds"
OUTSIDE = "share of the map outside its object"
MASK_OUTSIDE = "share of the map's mask outside its object"
ADJECTIVE, NOUN, EVEN = "colour adjective", "its noun", "an even map"
ON_OWN, ON_OTHER, ON_GROUND = (
    "change of its own object",
    "change of the other object",
    ("change of the ground"),
)
REPLACED, FULL_STOP, OTHER_NOISE = (
    "colour adjective replaced",
    "full stop taken out (control)",
    "other noise (scale)",
)


def study_entanglement(
    backend: Backend,
    *,
    n: int,
    method: str = "daam",
    steps: int = 4,
    seed: int = 0,
    on_image: Callable[[int], object] = lambda count: None,
) -> EntanglementStudy:
    """The two experiments of the paper on feature entanglement (Tang et al., arXiv 2210.04885, its
    last part), with controls.

    *Cohyponyms*: ``a red circle and a blue square`` names two kinds of one thing. The maps of the
    two nouns are compared with those of ``a red circle and a blue circle`` (two objects, but no
    cohyponyms) and with those of a shape and the ground (no cohyponyms either); the drawing with
    that of each object alone, from the same noise.

    *Adjectives*: how much of the map of ``red`` lies outside the circle, beside the map of
    ``circle`` and an even one; and how far the pixels of the other object and of the ground move
    when another colour takes the place of ``red``, from the same noise, beside an edit that asks
    for nothing else (the full stop taken out) and other noise.

    Args:
        backend: a model that draws prompts of ``scenes``.
        n: the number of prompts.
        method: the name of a registered method.
        steps: the number of evenly spaced steps it looks at.
        seed: of prompts and noise.
        on_image: called with how many prompts are done.

    Raises:
        ValueError: a bad number, a model of other prompts.
        ValueError, KeyError: a method that isn't there.
        MissingCapabilityError: a model that the method needs more of.
    """
    if n < 1:
        raise ValueError(f"at least one prompt is needed, not {n}")
    if data_of(backend.model_id) is not SCENES:
        raise ValueError(
            f"this study asks for coloured shapes, which {backend.model_id} was never trained on"
        )
    attributor = method_for(backend, method, steps)
    nouns, adjectives = _Nouns(), _Adjectives()
    for index in range(n):
        rng = np.random.default_rng((seed, 17, index))
        scene = pair_scene(rng)
        first, second = scene.groups
        conditions = {
            "both": scene,
            "twice": replace(scene, groups=(first, replace(second, shape=first.shape))),
            "first": replace(scene, groups=(first,), relation=None),
            "second": replace(scene, groups=(second,), relation=None),
            "recoloured-0": recoloured(scene, 0, rng),
            "recoloured-1": recoloured(scene, 1, rng),
            "no-stop": replace(scene, full_stop=False),
            "other-noise": scene,
        }
        noise, other = (int(s) for s in np.random.SeedSequence((seed, index)).generate_state(2))
        seeds = [other if name == "other-noise" else noise for name in conditions]
        drawn = draw(backend, [one.prompt for one in conditions.values()], seeds)
        images = dict(zip(conditions, drawn, strict=True))
        sample = f"pair-{index:04d}"
        maps = attributor.attribute(images["both"])
        nouns.add(sample, conditions, images, maps, attributor)
        adjectives.add(sample, scene, images, maps)
        on_image(1)
    return EntanglementStudy(
        model=backend.model_id,
        method=attributor.name,
        images=n,
        steps=steps,
        seed=seed,
        cohyponyms=nouns.found(),
        adjectives=adjectives.found(),
        dropped=adjectives.dropped,
    )


def pair_scene(rng: np.random.Generator) -> Scene:
    """Two objects of different shapes and colours, of the test split, whose shapes and colours can
    be exchanged without asking for a pair that was never trained on."""
    while True:
        colours = rng.choice(list(COLOURS), 2, replace=False).tolist()
        shapes = rng.choice(list(SHAPES), 2, replace=False).tolist()
        groups = tuple(Group(1, None, c, s) for c, s in zip(colours, shapes, strict=True))
        scene = Scene(groups, "and", str(rng.choice(list(GROUNDS))), full_stop=True)
        crossed = (colours[1], shapes[0])
        if crossed not in UNSEEN_PAIRS and split_of(scene) == "test":
            return scene


def recoloured(scene: Scene, place: int, rng: np.random.Generator) -> Scene:
    """The scene with one object in a colour that none has."""
    taken = {group.colour for group in scene.groups}
    shape = scene.groups[place].shape
    free = [c for c in COLOURS if c not in taken and (c, shape) not in UNSEEN_PAIRS]
    groups = list(scene.groups)
    groups[place] = replace(groups[place], colour=str(rng.choice(free)))
    return replace(scene, groups=tuple(groups))


class _Values:
    """Values by measure and condition, with the images that they are of."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], tuple[list[str], list[float]]] = {}

    def add_values(self, name: str, condition: str, sample: str, values: Iterable[float]) -> None:
        samples, there = self._values.setdefault((name, condition), ([], []))
        for value in values:
            samples.append(sample)
            there.append(float(value))

    def get(self, name: str, condition: str) -> Finding:
        # A loss is one share less another.
        bounds = (-1.0, 1.0) if name == LOSS else SHARE
        values = self._values.get((name, condition), ([], []))
        return Finding(name, condition, mean_over_words(*values, bounds=bounds))


class _Nouns(_Values):
    """The experiment on cohyponyms."""

    def add(
        self,
        sample: str,
        scenes: dict[str, Scene],
        images: dict[str, Trajectory],
        maps: AttributionMaps,
        attributor: TextImageAttributor,
    ) -> None:
        both, twice = scenes["both"], scenes["twice"]
        one, other = (_mask(w) for w in _noun_maps(maps, both))
        ground = _mask(maps["background"])
        self.add_values(OVERLAP, COHYPONYMS, sample, [overlaps(one, other)[2]])
        self.add_values(
            OVERLAP, WITH_GROUND, sample, [overlaps(m, ground)[2] for m in (one, other)]
        )
        same = [_mask(w) for w in _noun_maps(attributor.attribute(images["twice"]), twice)]
        self.add_values(OVERLAP, SAME_NOUN, sample, [overlaps(*same)[2]])
        right = {
            name: [_is_there(group, segment(images[name].image)) for group in scenes[name].groups]
            for name in ("both", "twice", "first", "second")
        }
        alone = right["first"] + right["second"]
        together, same_noun = right["both"], right["twice"]
        self.add_values(RIGHT, ALONE, sample, alone)
        self.add_values(RIGHT, SAME_NOUN, sample, same_noun)
        self.add_values(RIGHT, COHYPONYMS, sample, together)
        # Object by object, so that the interval is that of the difference.
        pairs = zip(alone, same_noun, together, strict=True)
        for of_alone, of_same, of_together in pairs:
            self.add_values(LOSS, FROM_ALONE, sample, [float(of_alone) - of_together])
            self.add_values(LOSS, FROM_SAME, sample, [float(of_same) - of_together])

    def found(self) -> tuple[Finding, ...]:
        wanted = [
            *((OVERLAP, condition) for condition in (COHYPONYMS, SAME_NOUN, WITH_GROUND)),
            *((RIGHT, condition) for condition in (ALONE, SAME_NOUN, COHYPONYMS)),
            *((LOSS, condition) for condition in (FROM_ALONE, FROM_SAME)),
        ]
        return tuple(self.get(*one) for one in wanted)


class _Adjectives(_Values):
    """The experiment on adjectives."""

    def __init__(self) -> None:
        super().__init__()
        self.dropped = 0

    def add(
        self, sample: str, scene: Scene, images: dict[str, Trajectory], maps: AttributionMaps
    ) -> None:
        image = images["both"].image
        found = segment(image)
        objects = [[o.mask for o in found.members(scene, group)] for group in scene.groups]
        if not all(objects):
            self.dropped += 2
            return
        masks = [np.logical_or.reduce(of_group) for of_group in objects]
        ground = ~(masks[0] | masks[1])
        words = PromptWords.of(images["both"].tokens)
        for place, own in enumerate(masks):
            tagged = {
                w.tag: w for w in scene.words if w.referent == place and w.tag in ("ADJ", "NOUN")
            }
            for condition, tag in ((ADJECTIVE, "ADJ"), (NOUN, "NOUN")):
                word = words.find(slice(tagged[tag].start, tagged[tag].stop))
                word_map = maps.at(word)
                self.add_values(OUTSIDE, condition, sample, [share_outside(word_map, own)])
                cut = _mask(word_map)
                self.add_values(MASK_OUTSIDE, condition, sample, [1 - own[cut].mean()])
            self.add_values(OUTSIDE, EVEN, sample, [1 - own.mean()])
            for condition, name in (
                (REPLACED, f"recoloured-{place}"),
                (FULL_STOP, "no-stop"),
                (OTHER_NOISE, "other-noise"),
            ):
                moved = pixel_change(image, images[name].image)
                self.add_values(ON_OWN, condition, sample, [moved[own].mean()])
                self.add_values(ON_OTHER, condition, sample, [moved[masks[1 - place]].mean()])
                if ground.any():
                    self.add_values(ON_GROUND, condition, sample, [moved[ground].mean()])

    def found(self) -> tuple[Finding, ...]:
        wanted = [
            *((OUTSIDE, condition) for condition in (ADJECTIVE, NOUN, EVEN)),
            *((MASK_OUTSIDE, condition) for condition in (ADJECTIVE, NOUN)),
            *(
                (name, condition)
                for name in (ON_OWN, ON_OTHER, ON_GROUND)
                for condition in (REPLACED, FULL_STOP, OTHER_NOISE)
            ),
        ]
        return tuple(self.get(*one) for one in wanted)


def share_outside(word_map: WordMap, mask: Mask) -> float:
    """Return the share of a map's positive part that lies outside a mask, 0 to 1; of a map without
    one, as of an even map."""
    values = np.maximum(word_map.resized().astype(np.float64), 0)
    total = values.sum()
    return float(values[~mask].sum() / total) if total > 0 else float(1 - mask.mean())


def _noun_maps(maps: AttributionMaps, scene: Scene) -> list[WordMap]:
    words = PromptWords.of(maps.tokens)
    nouns = [w for w in scene.words if w.tag == "NOUN" and w.referent in (0, 1)]
    return [maps.at(words.find(slice(noun.start, noun.stop))) for noun in nouns]


def _mask(word_map: WordMap) -> Mask:
    return ShownMap(word_map).mask(THRESHOLD)


def _is_there(group: Group, found: Segmentation) -> bool:
    return any((o.colour, o.shape) == (group.colour, group.shape) for o in found.objects)


def table(found: EntanglementStudy) -> str:
    """The study as text."""

    def rows(findings: tuple[Finding, ...], what: str) -> str:
        lines = [[what, "n", "mean [95 %]"]]
        lines += [
            [f"{f.name}: {f.condition}", str(f.estimate.n), estimate_text(f.estimate)]
            for f in findings
        ]
        return aligned(lines)

    return "\n".join(
        [
            f"{found.method} on {counted(found.images, 'prompt')} drawn by {found.model}",
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
                f"paper: {THE_PAPER}: the presence of cohyponyms worsens generation by 9 %, and "
                "descriptive adjectives attend too broadly (Stable Diffusion)",
            ),
        ]
    )


@options
class Entanglement(WordStudy):
    """The study as a command."""

    name = "entanglement"
    line = "whether words get into each other's way: cohyponyms, adjectives"
    epilog = """\
Two experiments after the paper of DAAM, on prompts of two coloured shapes, each with controls
drawn from the same noise. Cohyponyms: do the maps of two nouns of one kind (circle, square)
overlap, and is each drawn worse than alone, or than beside another of its own shape? Adjectives:
how much of a colour word's map lies outside its object, and what moves in the rest of the image
when another colour takes its place? Intervals are 95 %, by t over prompts.

The model must draw coloured shapes: what it drew is found by their colours.

example:
  wordlight study entanglement -n 16 -o out/entanglement
"""

    def find(self) -> EntanglementStudy:
        with self.bar("drawing prompts", self.n, "prompts") as bar:
            return study_entanglement(
                self.load(),
                n=self.n,
                method=self.method,
                steps=self.steps,
                seed=self.seed,
                on_image=bar.update,
            )
