"""What studies of words are made on: tagged texts, drawn with seeds of their own, and mapped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from wordlight.attribution import registry
from wordlight.attribution.attributor import TextImageAttributor
from wordlight.attribution.words import PromptWords, Word
from wordlight.backends.backend import Backend
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.datasets.images.generated_scenes import BATCH, GeneratedScenes
from wordlight.comparisons.datasets.tagged_text import TaggedText, TaggedToken
from wordlight.comparisons.datasets.tags_of_scenes import tag_scene
from wordlight.comparisons.rows.row import check_steps, step_options

#: Where the original paper's figures are from.
PAPER = "Tang et al., What the DAAM, arXiv 2210.04885"


@dataclass(frozen=True)
class StudyTexts:
    """Tagged texts with the seeds of their images' noise, and names by image."""

    source: str
    texts: tuple[TaggedText, ...]
    seeds: tuple[int, ...]
    samples: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)


def texts_of_scenes(backend: Backend, n: int, split: str = "test", seed: int = 0) -> StudyTexts:
    """The first ``n`` prompts of a split of ``scenes``, tagged by its grammar; their images are
    those of ``wordlight compare``.

    Raises ValueError for an unknown split or a bad number.
    """
    scenes = GeneratedScenes(backend, split, n, seed)
    return StudyTexts(
        f"prompts of the scenes' {split} split, tagged by their grammar",
        tuple(tag_scene(scene) for scene in scenes.scenes),
        tuple(scenes.noise_seed(index) for index in range(n)),
        scenes.samples,
    )


def given_texts(texts: Iterable[TaggedText], source: str, n: int, seed: int = 0) -> StudyTexts:
    """The first ``n`` of texts that are tagged already, or all where there are fewer.

    Raises ValueError where there is none.
    """
    taken = tuple(islice(texts, n))
    if not taken:
        raise ValueError(f"there is no sentence in {source}")
    seeds = [int(np.random.SeedSequence((seed, i)).generate_state(1)[0]) for i in range(len(taken))]
    return StudyTexts(
        source, taken, tuple(seeds), tuple(f"text-{index:04d}" for index in range(len(taken)))
    )


def draw(backend: Backend, prompts: Sequence[str], seeds: Sequence[int]) -> list[Trajectory]:
    """Draw prompts, some at a time, each from the noise of its seed."""
    drawn: list[Trajectory] = []
    for start in range(0, len(prompts), BATCH):
        some = slice(start, start + BATCH)
        found = backend.sample(list(prompts[some]), seed=list(seeds[some]))
        drawn += [found] if isinstance(found, Trajectory) else found
    return drawn


def place_words(text: TaggedText, words: PromptWords) -> dict[int, Word]:
    """The prompt's word or phrase of each tagged token, by the token's index.

    A token that isn't made of whole words (the halves of ``don't``) has none, nor has one that the
    context cut off.
    """
    placed: dict[int, Word] = {}
    taken: set[int] = set()
    for index, token in enumerate(text.tokens):
        try:
            word = words.find(slice(token.start, token.stop))
        except KeyError:
            continue
        if not taken & set(word.tokens):
            placed[index] = word
            taken |= set(word.tokens)
    return placed


def is_punctuation(token: TaggedToken) -> bool:
    """Whether a token is a mark and no word."""
    return token.tag in ("PUNCT", "SYM")


def method_for(backend: Backend, name: str, steps: int) -> TextImageAttributor:
    """Return a registered method that looks at some evenly spaced steps.

    Raises:
        ValueError, KeyError: an unknown method, or more steps than images have.
        MissingCapabilityError: a method that needs what the model lacks.
    """
    kind = registry.get(name)
    chosen = step_options(kind, steps)
    check_steps(name, chosen.get("steps"), backend.denoising_steps())
    return kind(backend, **chosen)
