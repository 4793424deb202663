"""Texts for studies of words: tagged, drawn with seeds of their own, and mapped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from wordlight.attribution import registry
from wordlight.attribution.attributor import TextImageAttributor
from wordlight.attribution.words import PromptWords, Word
from wordlight.backends.backend import Backend
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.datasets.images.generated_scenes import BATCH, GeneratedScenes
from wordlight.comparisons.datasets.tagged_text import (
    TaggedText,
    TaggedToken,
    read_conllu,
    tag_by_spacy,
)
from wordlight.comparisons.datasets.tags_of_scenes import tag_scene
from wordlight.comparisons.rows.row import check_steps, step_options
from wordlight.comparisons.runs.options import PATH, TEXT, option, options
from wordlight.comparisons.studies.results import notes
from wordlight.comparisons.studies.study import Study, number_of, seed_of, steps_looked_at
from wordlight.comparisons.wording import counted

#: Where the original paper's figures are from.
THE_PAPER = "Tang et al., What the DAAM, arXiv 2210.04885"


@dataclass(frozen=True)
class StudyTexts:
    """Tagged texts with the seeds of their images' noise, and names by image."""

    source: str
    texts: tuple[TaggedText, ...]
    seeds: tuple[int, ...]
    samples: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, kw_only=True)
class TextFindings:
    """The findings of a study of tagged texts.

    Attributes:
        source: of the texts.
        images: the number of images.
        steps: the number of steps that the method looked at.
        not_placed: the number of tagged words without a map of their own.
    """

    model: str
    method: str
    source: str
    images: int
    steps: int
    seed: int
    not_placed: int

    def facts(self) -> dict[str, Any]:
        """Return these facts as plain data."""
        return {one.name: getattr(self, one.name) for one in fields(TextFindings)}

    def report(self, table: str, *told: str) -> str:
        """Return the text of the study: what was studied, its table, and notes on that."""
        lost = f"{counted(self.not_placed, 'word')} without a map of their own"
        title = f"{self.method} on {counted(self.images, 'image')} by {self.model} ({self.source})"
        return "\n".join([title, "", table, "", *notes(*told, lost if self.not_placed else "")])


def texts_of_scenes(backend: Backend, n: int, split: str = "test", seed: int = 0) -> StudyTexts:
    """The first ``n`` prompts of a split, tagged by their grammar.

    They are those of ``GeneratedScenes``, and their images those of ``wordlight compare``.

    Raises ValueError for an unknown split or a bad number.
    """
    scenes = GeneratedScenes(backend, split, n, seed)
    return StudyTexts(
        f"prompts of the {scenes.data.name}' {split} split, tagged by their grammar",
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
    """Return whether a token is a mark and no word."""
    return token.tag in ("PUNCT", "SYM")


def not_placed_note(n: int) -> str:
    """Return a table's note on tagged words without a map; "" for none."""
    have = "has no map of its own" if n == 1 else "have no map of their own"
    return f"{counted(n, 'word')} {have}" if n else ""


def method_for(backend: Backend, name: str, steps: int) -> TextImageAttributor:
    """Return a registered method that looks at some evenly spaced steps.

    Raises:
        ValueError, KeyError: an unknown method, or more steps than images have.
        MissingCapabilityError: a method that needs what the model lacks.
    """
    kind = registry.get(name)
    chosen = step_options(kind, steps)
    check_steps(name, chosen.get("steps"), backend)
    return kind(backend, **chosen)


@options
class WordStudy(Study):
    """The options of every study of words."""

    method: str = option(
        TEXT,
        "the method (default: daam); `wordlight methods` lists them",
        default="daam",
        metavar="NAME",
    )
    n: int = number_of("prompts", 16)
    steps: int = steps_looked_at()
    seed: int = seed_of("the images' noise and the resampling")


@options
class TextStudy(WordStudy):
    """The options of every study of tagged texts: the prompts that are drawn."""

    conllu: Path | None = option(
        PATH,
        "a CoNLL-U file of sentences to draw, with their parts of speech, heads and relations "
        "(default: prompts that the model was trained for, tagged by their grammar)",
        default=None,
        metavar="FILE",
    )
    prompts: Path | None = option(
        PATH,
        "a text file of prompts, one a line, which spaCy tags; needs --spacy",
        default=None,
        metavar="FILE",
    )
    spacy: str | None = option(
        TEXT,
        "the spaCy pipeline for --prompts, such as en_core_web_trf, installed beforehand",
        default=None,
        metavar="PIPELINE",
    )

    def texts(self, backend: Backend) -> StudyTexts:
        """The texts that were asked for.

        Raises ValueError for options that don't go together or texts that can't be had.
        """
        if self.conllu is not None and self.prompts is not None:
            raise ValueError("give --conllu or --prompts, not both")
        if (self.prompts is None) != (self.spacy is None):
            raise ValueError("--prompts and --spacy go together: a file, and what tags it")
        if self.conllu is not None:
            return given_texts(read_conllu(self.conllu), str(self.conllu), self.n, self.seed)
        if self.prompts is not None and self.spacy is not None:
            lines = self.prompts.read_text("utf-8").splitlines()
            prompts = [line.strip() for line in lines if line.strip()]
            tagged = tag_by_spacy(prompts[: self.n], self.spacy)
            source = f"{self.prompts}, tagged by {self.spacy}"
            return given_texts(tagged, source, self.n, self.seed)
        return texts_of_scenes(backend, self.n, seed=self.seed)
