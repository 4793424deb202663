"""``wordlight models``: what can be explained."""

from __future__ import annotations

import argparse
import json

from wordlight.comparisons.cli.arguments import Commands, add_command

_DESCRIPTIONS = {
    "scenes": "a tiny Stable Diffusion that draws coloured shapes on 64x64 pixels, shipped with "
    "wordlight",
    "things": "a tiny Stable Diffusion of 81 real nouns, trained too little yet: half of what it "
    "draws isn't what was asked for",
    "things-dit": "a tiny Z-Image, whose attention is joint, of the same nouns; 93 of 100 things "
    "that it is asked for are there",
}
_OTHERS = """\
Any other text-to-image model (on torch of the families that --families lists, on flax Stable
Diffusion 1.x, 2.x and XL) is named by
  a folder in diffusers' format      --model path/to/model
  a Hub id (safetensors only)        --model stable-diffusion-v1-5/stable-diffusion-v1-5
A pipeline that you have in Python is taken as it is: wordlight.backends.load(pipeline)."""


def add_to(commands: Commands, line: str) -> None:
    """Add the command, with its line in the overview."""
    parser = add_command(commands, "models", line)
    parser.add_argument("--json", action="store_true", help="print JSON")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--families", action="store_true", help="list the families of denoisers known on torch"
    )
    which.add_argument(
        "--matrix",
        action="store_true",
        help="try what each family can do on a tiny model of it (a minute or two), as Markdown",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar on stderr")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the models that need no download, or what is known of others."""
    if arguments.families or arguments.matrix:
        _print_families(arguments)
        return
    from wordlight.backends.embedded import EMBEDDED
    from wordlight.backends.loading import frameworks

    rows = [
        {"name": name, "description": _DESCRIPTIONS[name], "folder": str(folder)}
        for name, folder in EMBEDDED.items()
    ]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(f"{row['name']:11} {row['description']}")
    print(f"\n{_OTHERS}\n\nFrameworks installed: {', '.join(frameworks()) or 'none'}")


def _print_families(arguments: argparse.Namespace) -> None:
    from wordlight.backends.known_families import capability_matrix, known_families, matrix_table

    if arguments.matrix:
        rows = capability_matrix(show_progress=not arguments.quiet)
        print(json.dumps(rows, indent=2) if arguments.json else matrix_table(rows))
        return
    found = known_families()
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for row in found:
        print(f"{row['name']:28} {', '.join(row['denoisers'])}")
