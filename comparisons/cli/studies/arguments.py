"""Arguments that the studies of words have in common, and how they tell what they found."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wordlight.comparisons.cli.arguments import (
    add_count,
    add_folder,
    add_model,
    add_output,
    add_seed,
    add_steps,
)

if TYPE_CHECKING:
    from wordlight.backends.backend import Backend
    from wordlight.comparisons.studies.texts import StudyTexts


def add_study_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """What every study of words takes: model, method, numbers, output."""
    add_model(parser)
    parser.add_argument(
        "--method",
        default="daam",
        metavar="NAME",
        help="whose maps (default: daam); `wordlight methods` lists them",
    )
    add_count(parser, 16, "prompts")
    add_steps(parser)
    add_seed(parser, "the images' noise and the resampling")
    add_folder(parser, f"write the numbers ({name}.json) and the table ({name}.txt) there")
    add_output(parser, bars="progress bar")


def add_texts(parser: argparse.ArgumentParser) -> None:
    """Which prompts are drawn: those of scenes, or tagged ones from a file."""
    parser.add_argument(
        "--conllu",
        type=Path,
        metavar="FILE",
        help=(
            "draw the sentences of this CoNLL-U file, with the parts of speech, heads and "
            "relations that it gives (default: prompts of scenes, tagged by their grammar)"
        ),
    )
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="draw the lines of this text file, tagged by spaCy; needs --spacy",
    )
    parser.add_argument(
        "--spacy",
        metavar="PIPELINE",
        help="spaCy's pipeline for --prompts, such as en_core_web_trf, installed beforehand",
    )


def texts_of(arguments: argparse.Namespace, backend: Backend) -> StudyTexts:
    """The texts that were asked for.

    Raises ValueError for options that don't go together or texts that can't be had.
    """
    from wordlight.comparisons.datasets.tagged_text import read_conllu, tag_by_spacy
    from wordlight.comparisons.studies.texts import given_texts, texts_of_scenes

    if arguments.conllu is not None and arguments.prompts is not None:
        raise ValueError("give --conllu or --prompts, not both")
    if (arguments.prompts is None) != (arguments.spacy is None):
        raise ValueError("--prompts and --spacy go together: a file, and what tags it")
    if arguments.conllu is not None:
        source = str(arguments.conllu)
        return given_texts(read_conllu(arguments.conllu), source, arguments.n, arguments.seed)
    if arguments.prompts is not None:
        lines = arguments.prompts.read_text("utf-8").splitlines()
        prompts = [line.strip() for line in lines if line.strip()]
        tagged = tag_by_spacy(prompts[: arguments.n], arguments.spacy)
        source = f"{arguments.prompts}, tagged by {arguments.spacy}"
        return given_texts(tagged, source, arguments.n, arguments.seed)
    return texts_of_scenes(backend, arguments.n, seed=arguments.seed)


def tell(arguments: argparse.Namespace, name: str, data: dict[str, Any], text: str) -> None:
    """Write what was found where it was asked for, and print it."""
    from wordlight.comparisons.studies.results import write_study

    if arguments.out is not None:
        write_study(arguments.out, name, data, text)
    print(json.dumps(data, indent=2, allow_nan=False) if arguments.json else text)
