"""``wordlight attribute``: draw an image, and show what each word lights up."""

from __future__ import annotations

import argparse
import json
import re
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image

from wordlight.attribution import registry
from wordlight.attribution.attributor import TextImageAttributor
from wordlight.attribution.film import by_step, save_film
from wordlight.attribution.maps import AttributionMaps
from wordlight.attribution.methods.token_fitting import check_fits
from wordlight.attribution.words import PromptWords, Word, WordKey
from wordlight.backends.backend import Backend, Inversion
from wordlight.backends.loading import default_framework
from wordlight.backends.tokens import Tokens
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.cli.arguments import (
    Commands,
    add_budget,
    add_command,
    add_model,
    add_output,
    share,
)
from wordlight.comparisons.cli.fitted_tokens import FittedTokens
from wordlight.comparisons.cli.given_picture import GivenPicture
from wordlight.comparisons.cli.picture_metadata import prompt_of_picture
from wordlight.comparisons.results.side_by_side import view
from wordlight.comparisons.rows.budget import Workload, effort_of, fit, refuse_both
from wordlight.comparisons.rows.row import check_steps
from wordlight.comparisons.runs.options import ModelOptions, method_options, whole_number
from wordlight.comparisons.store.output_folder import written_at_once
from wordlight.comparisons.store.owned_files import OwnedFiles
from wordlight.comparisons.wording import counted

_EPILOG = """\
In the output folder: viewer.html (a page to look at all of it with, in a browser, without
network), image.png, overlay-01-WORD.png and so on, maps.safetensors (the maps; read them with
wordlight.attribution.AttributionMaps.load), attribute.json (what was asked and written). With
several methods the names of overlays and maps end in the method's. Files of an earlier run there
are replaced; a folder that holds other files of these names is refused.

examples:
  wordlight attribute "a red circle and a blue square" --method daam -o out/
  wordlight attribute "a red circle and a blue square" --word "red circle" --word square \\
      --method occlusion --method daam -o out/
  wordlight attribute "a red circle and a blue square" --word triangle \\
      --method open-vocabulary -o out/
  wordlight attribute "a dog on a bench" --image photo.jpg --word dog --fit dog=dog.png \\
      --method open-vocabulary,scores=raw -o out/
  wordlight attribute "a red circle" --method integrated-gradients,n_steps=32,steps=4 -o out/
  wordlight attribute "a dog" --model path/to/model --sampling-steps 30 --guidance 7.5 -o out/
  wordlight attribute "a dog on a bench" --image photo.jpg --masks -o out/photo
  wordlight attribute --image from-comfyui.png --model path/to/model -o out/png
  wordlight attribute "a red circle" --word circle --film -o out/film
  wordlight attribute "a dog" --negative-prompt "blurry hands" --words-of negative -o out/not
"""
IMAGE = "image.png"
DEFAULT_METHOD = "daam"
_THRESHOLD = 0.4
VIEWER = "viewer.html"
TOKENS = "tokens.safetensors"
_LISTING = "attribute.json"
_COMMAND = "wordlight attribute"
_OURS = re.compile(
    r"image\.png|viewer\.html|(overlay|mask)-\d+-[^/]*\.png|film-\d+-[^/]*\.gif"
    r"|maps(-[^/]*)?\.safetensors|tokens\.safetensors"
)


def add_to(commands: Commands, line: str) -> None:
    """Add the command, with its line in the overview."""
    parser = add_command(commands, "attribute", line, _EPILOG)
    parser.add_argument(
        "prompt",
        nargs="?",
        metavar="PROMPT",
        help="what to draw, in words; left out with --image, it is read from the picture's file",
    )
    parser.add_argument(
        "--image",
        type=Path,
        metavar="FILE",
        help=(
            "explain this picture, which the prompt describes, instead of drawing one; it is "
            "turned as its EXIF says, and shown to the model at about the size that it draws; "
            "without PROMPT, the one that AUTOMATIC1111's web UI or ComfyUI wrote into the file"
        ),
    )
    parser.add_argument(
        "--inversion",
        choices=get_args(Inversion),
        help="how the picture is noised: with random noise (noising, the default), or by inverting "
        "the sampler's steps (ddim)",
    )
    parser.add_argument(
        "--method",
        action="append",
        metavar="NAME",
        help=(
            f"an attribution method (default: {DEFAULT_METHOD}); repeatable; `wordlight methods` "
            "lists them, with --json also their options, which may follow the name: "
            "integrated-gradients,n_steps=32,wrt=tokens"
        ),
    )
    parser.add_argument(
        "--word",
        action="append",
        metavar="WORD",
        help=(
            "a word or phrase of the prompt to show, wherever it occurs (with --method "
            "open-vocabulary also one that isn't in it); repeatable (default: every word)"
        ),
    )
    parser.add_argument(
        "--fit",
        action="append",
        metavar="WORD=MASK",
        help=(
            "fit a token to this mask of the image, a picture of its size, for --method "
            "open-vocabulary to ask for in the word's place; repeatable; tokens.safetensors has "
            "them afterwards, for other images: open-vocabulary,tokens=FILE"
        ),
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("out/attribute"),
        metavar="FOLDER",
        help="the folder for the files (default: out/attribute)",
    )
    parser.add_argument(
        "--seed", type=whole_number(0), default=0, help="the seed of the image's noise (default: 0)"
    )
    parser.add_argument(
        "--negative-prompt",
        metavar="PROMPT",
        help="the negative prompt, which guidance pushes away from",
    )
    parser.add_argument(
        "--words-of",
        choices=("prompt", "negative"),
        default="prompt",
        help="the words to explain: the prompt's (default), or --negative-prompt's",
    )
    for side in ("height", "width"):
        parser.add_argument(
            f"--{side}",
            type=whole_number(1),
            metavar="PIXELS",
            help=f"the image's {side} (default: the model's own)",
        )
    parser.add_argument(
        "--masks",
        action="store_true",
        help=(
            "also write each word's mask, white on black, at the size of the image (with --image, "
            "at that picture's own size)"
        ),
    )
    parser.add_argument(
        "--threshold",
        type=share,
        metavar="T",
        help=(
            "the threshold of --masks; 0 is a map's least value, 1 its greatest (default: "
            f"{_THRESHOLD})"
        ),
    )
    parser.add_argument(
        "--film",
        action="store_true",
        help=(
            "also write each word's map step by step, as GIF, and offer the steps in the page; a "
            "word's map is then the mean over steps"
        ),
    )
    add_budget(
        parser,
        "every method gets as much effort (n_steps, n_samples, ...) as fits; one that doesn't fit "
        "at all is refused before any work",
    )
    add_model(parser)
    # Its name before; elsewhere --steps are the steps that methods look at.
    parser.add_argument(
        "--steps",
        dest="sampling_steps",
        type=whole_number(1),
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )
    add_output(parser, bars="messages")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Draw, attribute, and write the page, the image, the overlays and the maps, all or nothing."""

    def say(message: str) -> None:
        if not arguments.quiet:
            print(message, file=sys.stderr)

    options = ModelOptions.of(arguments)
    asked = [method_options(text) for text in dict.fromkeys(arguments.method or [DEFAULT_METHOD])]
    methods = [name for name, _ in asked]
    for name, chosen in asked:
        registry.check_options(name, chosen)  # before a model is loaded
        if methods.count(name) > 1:
            raise ValueError(f"{name} can be asked once: its files go by its name")
    if arguments.threshold is not None and not arguments.masks:
        raise ValueError("--threshold says where masks are cut: ask for them with --masks")
    threshold = _THRESHOLD if arguments.threshold is None else arguments.threshold
    picture = GivenPicture.of(arguments)
    fits = FittedTokens.of(arguments.fit or (), methods)
    if arguments.prompt is None:
        written = prompt_of_picture(arguments.image)
        arguments.prompt = written.prompt
        say(f"the prompt that {written.source} wrote into the picture: {written.prompt}")
    _check_words_of(arguments)
    own = OwnedFiles(arguments.out, _LISTING, _COMMAND, _OURS)
    own.check_free([IMAGE, VIEWER])
    say(f"loading {options.model} on {options.framework or default_framework()}")
    backend = options.load()
    if fits.masks:
        check_fits(backend)
    attributors = [registry.construct(backend, name, chosen) for name, chosen in asked]
    for attributor in attributors:
        check_steps(attributor.name, attributor.steps, backend)
    negative = arguments.words_of == "negative"
    text = arguments.negative_prompt if negative else arguments.prompt
    tokens = backend.tokenize(text)
    shown = _shown(PromptWords.of(tokens), arguments.word)
    fits.check_words(shown)
    players: list[WordKey] | None = None
    if arguments.word:
        # The special positions are players of their own in any case.
        inside: list[WordKey] = [slice(w.start, w.stop) for w in shown if w.is_text]
        players = [*inside, *(w.text for w in shown if not w.in_prompt)]
        for attributor in attributors:
            _check_words(attributor, tokens, players)
    if arguments.budget is not None:
        for attributor, (_, chosen) in zip(attributors, asked, strict=True):
            refuse_both(attributor, chosen)
        workload = Workload.of(
            backend,
            [text],
            # A word from outside the prompt costs what takes such words nothing more.
            inside if arguments.word else None,
            guidance_scale=None if picture is None else 1.0,
        )
        pairs = zip(methods, attributors, strict=True)
        attributors = fit(pairs, arguments.budget, workload)
    several = len(attributors) > 1
    names = [_Names.of(shown, one.name if several else None, arguments) for one in attributors]
    files = [VIEWER, IMAGE, *(name for of_method in names for name in of_method.all)]
    files += [TOKENS] if fits.masks else []
    own.check_free(files)
    answers: list[AttributionMaps] = []
    with written_at_once(arguments.out) as partial:
        trajectory = _trajectory(backend, picture, arguments, say)
        if negative:
            trajectory = trajectory.of_negative()
        Image.fromarray(trajectory.image).save(partial / IMAGE)
        if fits.masks:
            say(f"fitting {counted(len(fits.masks), 'token')} to masks")
            attributors = fits.fitted(trajectory, picture, attributors, partial / TOKENS)
        for attributor, of_method in zip(attributors, names, strict=True):
            effort = "" if arguments.budget is None else f" ({effort_of(attributor)})"
            say(f"asking {attributor.name}{effort} about {counted(len(shown), 'word')}")
            # Some methods take minutes over all steps.
            loud = not arguments.quiet
            if arguments.film:
                maps = by_step(attributor, trajectory, players, show_progress=loud)
            else:
                maps = attributor.attribute(
                    trajectory, players, budget=arguments.budget, show_progress=loud
                )
            of_method.write(partial, maps, picture, threshold)
            answers.append(maps)
        view(answers).to_html(partial / VIEWER)
        summary = _summary(arguments.out, trajectory, answers, names)
        own.list_in(partial, files, summary)
        stale = own.written_before() - {*files, _LISTING}
    own.remove(stale)
    if arguments.json:
        print(json.dumps(summary, indent=2))
    else:
        for name in files:
            print(arguments.out / name)


def _trajectory(
    backend: Backend,
    picture: GivenPicture | None,
    arguments: argparse.Namespace,
    say: Callable[[str], None],
) -> Trajectory:
    """Draw the image, or show the given one to the model."""
    if picture is not None:
        height, width = picture.seen_size(backend.sampling)
        say(f"showing {arguments.image} to the model at {width}x{height} pixels")
        return picture.trajectory(backend, arguments.prompt, seed=arguments.seed)
    say("drawing the image")
    drawn: Trajectory = backend.sample(
        arguments.prompt,
        seed=arguments.seed,
        negative_prompt=arguments.negative_prompt,
        height=arguments.height,
        width=arguments.width,
    )
    return drawn


@dataclass(frozen=True, eq=False)
class _Names:
    """The names of the files that show one method's maps, by word."""

    maps: str
    overlays: dict[Word, str]
    masks: dict[Word, str]
    films: dict[Word, str]

    @classmethod
    def of(
        cls, shown: tuple[Word, ...], method: str | None, arguments: argparse.Namespace
    ) -> _Names:
        ending = "" if method is None else f"-{method}"

        def named(kind: str, suffix: str) -> dict[Word, str]:
            return {
                word: f"{kind}-{number:02d}-{_slug(word.text)}{ending}.{suffix}"
                for number, word in enumerate(shown, start=1)
            }

        return cls(
            f"maps{ending}.safetensors",
            named("overlay", "png"),
            named("mask", "png") if arguments.masks else {},
            named("film", "gif") if arguments.film else {},
        )

    @property
    def all(self) -> list[str]:
        """All of them, in the order in which they are listed."""
        by_word = (self.overlays, self.masks, self.films)
        return [*(name for names in by_word for name in names.values()), self.maps]

    def write(
        self, folder: Path, maps: AttributionMaps, picture: GivenPicture | None, threshold: float
    ) -> None:
        """Write the method's files; masks have the size of a given picture."""
        for word, name in self.overlays.items():
            maps.at(word).overlay().save(folder / name)
        for word, name in self.masks.items():
            word_map = maps.at(word) if picture is None else picture.at_own_size(maps.at(word))
            mask = word_map.mask(threshold)
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / name)
        for word, name in self.films.items():
            save_film(maps, word, folder / name)
        maps.save(folder / self.maps)


def _check_words_of(arguments: argparse.Namespace) -> None:
    """Raises ValueError where the words asked about are of a negative prompt that there isn't."""
    if arguments.words_of != "negative":
        return
    if arguments.image is not None:
        raise ValueError("--words-of negative: of a given picture there is no negative prompt")
    if not (arguments.negative_prompt or "").strip():
        raise ValueError("--words-of negative needs a --negative-prompt with words")


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


def _summary(
    out: Path, trajectory: Trajectory, answers: list[AttributionMaps], names: list[_Names]
) -> dict[str, Any]:
    def listed(of_word: dict[Word, str]) -> list[dict[str, Any]]:
        return [
            {"word": word.text, "occurrence": word.occurrence, "file": str(out / name)}
            for word, name in of_word.items()
        ]

    return {
        "prompt": trajectory.prompt,
        "model": trajectory.model_id,
        "seed": trajectory.seed,
        "image": str(out / IMAGE),
        "viewer": str(out / VIEWER),
        "methods": [
            {
                "method": maps.provenance.method,
                "maps": str(out / own.maps),
                "overlays": listed(own.overlays),
                **({"masks": listed(own.masks)} if own.masks else {}),
                **({"films": listed(own.films)} if own.films else {}),
                "settings": maps.provenance.settings,
                "forward_equivalents": maps.provenance.forward_equivalents,
                "seconds": maps.provenance.seconds,
            }
            for maps, own in zip(answers, names, strict=True)
        ],
    }
