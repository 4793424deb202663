"""``wordlight attribute``: draw an image, and show what each word lights up."""

from __future__ import annotations

import argparse
import json
import re
import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from wordlight.attribution import registry
from wordlight.attribution.attributor import TextImageAttributor
from wordlight.attribution.maps import AttributionMaps
from wordlight.attribution.words import PromptWords, Word, WordKey
from wordlight.backends.loading import default_framework
from wordlight.backends.tokens import Tokens
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.cli.arguments import (
    Commands,
    add_budget,
    add_command,
    add_model,
    add_output,
    load_model,
    method_options,
    whole_number,
)
from wordlight.comparisons.rows.budget import Workload, effort_of, fit, refuse_both
from wordlight.comparisons.store.output_folder import written_at_once

_EPILOG = """\
In the output folder: image.png, overlay-01-WORD.png and so on, maps.safetensors (the maps; read
them with wordlight.attribution.AttributionMaps.load). With several methods their names end in the
method's. Overlays and maps of an earlier run there go.

examples:
  wordlight attribute "a red circle and a blue square" --method daam -o out/
  wordlight attribute "a red circle and a blue square" --word "red circle" --word square \\
      --method occlusion --method daam -o out/
  wordlight attribute "a red circle and a blue square" --word triangle \\
      --method open-vocabulary -o out/
  wordlight attribute "a red circle" --method integrated-gradients,n_steps=32,steps=4 -o out/
  wordlight attribute "a dog" --model path/to/model --steps 30 --guidance 7.5 -o out/
"""
IMAGE = "image.png"
DEFAULT_METHOD = "daam"
#: What this command writes, beside the image.
_OURS = re.compile(r"overlay-\d+-.*\.png|maps(-.*)?\.safetensors")


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "attribute", "draw an image and show what each word lights up", _EPILOG
    )
    parser.add_argument("prompt", metavar="PROMPT", help="what to draw, in words")
    parser.add_argument(
        "--method",
        action="append",
        metavar="NAME",
        help=(
            f"how to attribute (default: {DEFAULT_METHOD}); repeatable; `wordlight methods` lists "
            "them, with --json their options too, which may follow the name: "
            "integrated-gradients,n_steps=32,wrt=tokens"
        ),
    )
    parser.add_argument(
        "--word",
        action="append",
        metavar="WORD",
        help=(
            "a word or phrase of the prompt to show, at every place where it occurs, or, with "
            "--method open-vocabulary, any other; repeatable (default: every word)"
        ),
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("out/attribute"),
        metavar="FOLDER",
        help="where the files go (default: out/attribute)",
    )
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, help="of the image's noise (default: 0)"
    )
    parser.add_argument(
        "--steps", type=whole_number(1), help="denoising steps (default: the model's own)"
    )
    parser.add_argument(
        "--guidance", type=float, metavar="SCALE", help="guidance scale (default: the model's own)"
    )
    parser.add_argument(
        "--negative-prompt", metavar="PROMPT", help="what guidance pushes away from"
    )
    for side in ("height", "width"):
        parser.add_argument(
            f"--{side}", type=whole_number(1), metavar="PIXELS", help="default: the model's own"
        )
    add_budget(
        parser,
        "every method gets as much effort (n_steps, n_samples, ...) as fits; one that doesn't fit "
        "at all is refused before any work",
    )
    add_model(parser)
    add_output(parser, bars="messages")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Draw, attribute, and write the image, the overlays and the maps, all or nothing."""

    def say(message: str) -> None:
        if not arguments.quiet:
            print(message, file=sys.stderr)

    asked = [method_options(text) for text in dict.fromkeys(arguments.method or [DEFAULT_METHOD])]
    methods = [name for name, _ in asked]
    for name in methods:
        registry.get(name)  # before a model is loaded
        if methods.count(name) > 1:
            raise ValueError(f"{name} can be asked once: its files go by its name")
    framework = arguments.framework or default_framework()
    say(f"loading {arguments.model} on {framework}")
    backend = load_model(arguments)
    attributors = [registry.construct(backend, name, options) for name, options in asked]
    tokens = backend.tokenize(arguments.prompt)
    shown = _shown(PromptWords.of(tokens), arguments.word)
    players: list[WordKey] | None = None
    if arguments.word:
        # The special positions are players of their own in any case.
        inside: list[WordKey] = [slice(w.start, w.stop) for w in shown if w.is_text]
        players = [*inside, *(w.text for w in shown if not w.in_prompt)]
        for attributor in attributors:
            _check_words(attributor, tokens, players)
    if arguments.budget is not None:
        for attributor, (_, options) in zip(attributors, asked, strict=True):
            refuse_both(attributor, options)
        workload = Workload.of(
            backend,
            [arguments.prompt],
            # A word from outside the prompt costs what takes such words nothing more.
            inside if arguments.word else None,
            steps=arguments.steps,
            guidance_scale=arguments.guidance,
        )
        pairs = zip(methods, attributors, strict=True)
        attributors = fit(pairs, arguments.budget, workload)
    answers: list[_Answer] = []
    with written_at_once(arguments.out) as partial:
        say("drawing the image")
        trajectory = backend.sample(
            arguments.prompt,
            seed=arguments.seed,
            steps=arguments.steps,
            guidance_scale=arguments.guidance,
            negative_prompt=arguments.negative_prompt,
            height=arguments.height,
            width=arguments.width,
        )
        Image.fromarray(trajectory.image).save(partial / IMAGE)
        for attributor in attributors:
            effort = "" if arguments.budget is None else f" ({effort_of(attributor)})"
            say(f"asking {attributor.name}{effort} about {len(shown)} words")
            ending = f"-{attributor.name}" if len(attributors) > 1 else ""
            answer = _Answer(
                attributor.attribute(
                    trajectory,
                    players,
                    budget=arguments.budget,
                    # Some methods take minutes over all steps.
                    show_progress=not arguments.quiet,
                ),
                f"maps{ending}.safetensors",
                {
                    word: f"overlay-{number:02d}-{_slug(word.text)}{ending}.png"
                    for number, word in enumerate(shown, start=1)
                },
            )
            for word, name in answer.overlays.items():
                answer.maps.at(word).overlay().save(partial / name)
            answer.maps.save(partial / answer.file)
            answers.append(answer)
    files = [IMAGE, *(name for answer in answers for name in answer.files)]
    for stale in arguments.out.iterdir():
        if _OURS.fullmatch(stale.name) and stale.name not in files:
            stale.unlink()
    if arguments.json:
        print(json.dumps(_summary(arguments.out, trajectory, answers), indent=2))
    else:
        for name in files:
            print(arguments.out / name)


@dataclass(frozen=True, eq=False)
class _Answer:
    """One method's maps, and the names of the files that show them."""

    maps: AttributionMaps
    file: str
    overlays: dict[Word, str]

    @property
    def files(self) -> list[str]:
        return [*self.overlays.values(), self.file]


def _shown(words: PromptWords, asked: list[str] | None) -> tuple[Word, ...]:
    """The words to show: all, or those asked for at every place where they occur, as words from
    outside where they occur at none.

    Raises ValueError for an empty prompt or word.
    """
    if not words.words:
        raise ValueError("the prompt is empty: say what to draw")
    if asked is None:
        return words.words
    found = [word for text in asked for word in _occurrences(words, text)]
    return tuple(dict.fromkeys(found))


def _occurrences(words: PromptWords, text: str) -> list[Word]:
    special = [word for word in words.specials if word.text == text]
    return special or words.occurrences(text) or [Word.outside(text)]


def _check_words(attributor: TextImageAttributor, tokens: Tokens, words: list[WordKey]) -> None:
    """Raises KeyError, in the method's name, for words that it can't be asked about."""
    try:
        attributor.players(tokens, words)
    except KeyError as error:
        raise KeyError(f"{attributor.name}: {error.args[0]}") from None


def _slug(text: str) -> str:
    """A word as part of a file's name, on any system: letters and digits, the rest a dash.

    >>> _slug("red circle"), _slug("../etc"), _slug("Straße"), _slug("?!")
    ('red-circle', 'etc', 'straße', 'mark')
    """
    plain = unicodedata.normalize("NFC", text).lower()
    return re.sub(r"[\W_]+", "-", plain).strip("-")[:40] or "mark"


def _summary(out: Path, trajectory: Trajectory, answers: list[_Answer]) -> dict[str, Any]:
    return {
        "prompt": trajectory.prompt,
        "model": trajectory.model_id,
        "seed": trajectory.seed,
        "image": str(out / IMAGE),
        "methods": [
            {
                "method": answer.maps.provenance.method,
                "maps": str(out / answer.file),
                "overlays": [
                    {"word": word.text, "occurrence": word.occurrence, "file": str(out / name)}
                    for word, name in answer.overlays.items()
                ],
                "settings": answer.maps.provenance.settings,
                "forward_equivalents": answer.maps.provenance.forward_equivalents,
                "seconds": answer.maps.provenance.seconds,
            }
            for answer in answers
        ],
    }
